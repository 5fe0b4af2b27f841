"""The labels of the demonstration nodes, against what the tools that write them document."""

import json

import pytest
from foundry_local.kube.nodes import A100, H100, L40S, R760XA, demo_nodes, node
from foundry_local.kube.resources import NODES
from foundry_local.kube.types import labels_of, name_of
from foundry_local.kube.validation import validate
from foundry_sim.facts.devices import device


def test_the_demonstration_cluster() -> None:
    shapes = {
        name_of(item): (
            labels_of(item).get("nvidia.com/gpu.product"),
            item["status"]["allocatable"].get("nvidia.com/gpu"),
        )
        for item in demo_nodes()
    }
    assert shapes == {
        "h100-0": ("NVIDIA-H100-80GB-HBM3", "8"), "h100-1": ("NVIDIA-H100-80GB-HBM3", "8"),
        "a100-0": ("NVIDIA-A100-SXM4-80GB", "8"), "l40s-0": ("NVIDIA-L40S", "4"), "cpu-0": (None, None),
    }  # fmt: skip


def test_h100_labels_are_those_of_a_real_node() -> None:
    labels = labels_of(demo_nodes()[0])
    expected = {
        "nvidia.com/gpu.count": "8", "nvidia.com/gpu.memory": "81559", "nvidia.com/gpu.family": "hopper",
        "nvidia.com/gpu.compute.major": "9", "nvidia.com/gpu.compute.minor": "0", "nvidia.com/gpu.mode": "compute",
        "nvidia.com/gpu.replicas": "1", "nvidia.com/gpu.sharing-strategy": "none", "nvidia.com/gpu.present": "true",
        "nvidia.com/mig.capable": "true", "nvidia.com/mig.config": "all-disabled", "nvidia.com/mig.strategy": "single",
        "nvidia.com/mps.capable": "false", "nvidia.com/vgpu.present": "false",
        "nvidia.com/gpu.deploy.device-plugin": "true", "nvidia.com/gpu.deploy.mig-manager": "true",
        "nvidia.com/cuda.runtime-version.full": "13.0", "feature.node.kubernetes.io/pci-10de.present": "true",
        "kubernetes.io/hostname": "h100-0", "kubernetes.io/arch": "amd64",
    }  # fmt: skip
    assert expected.items() <= labels.items()


def test_gpu_operator_puts_no_mig_manager_where_there_is_no_mig() -> None:
    labels = labels_of(demo_nodes()[3])
    assert labels["nvidia.com/mig.capable"] == "false" and labels["nvidia.com/gpu.family"] == "ada-lovelace"
    assert "nvidia.com/gpu.deploy.mig-manager" not in labels and "nvidia.com/mig.config" not in labels


@pytest.mark.parametrize("slices", [1, 10])
def test_hami_registers_each_device_and_multiplies_the_resource(slices: int) -> None:
    found = node("shared", 30, R760XA, L40S, 4, hami_slices=slices)
    assert labels_of(found)["gpu"] == "on"
    assert found["status"]["capacity"]["nvidia.com/gpu"] == str(4 * slices)
    register = json.loads(found["metadata"]["annotations"]["hami.io/node-nvidia-register"])
    assert len(register) == 4 and len({item["id"] for item in register}) == 4
    assert register[0].keys() == {"id", "count", "devmem", "devcore", "type", "mode", "health"}
    assert register[3] | {"id": ""} == {
        "id": "", "index": 3, "count": slices, "devmem": 46068, "devcore": 100, "type": "NVIDIA L40S", "numa": 1,
        "mode": "hami-core", "health": True,
    }  # fmt: skip


def test_every_node_is_a_valid_object_and_every_product_a_known_device() -> None:
    for item in demo_nodes():
        validate(NODES, item)
    for gpu in (H100, A100, L40S):
        mib = device(gpu.product).memory_bytes / 2**20
        assert abs(mib - gpu.memory_mib) / gpu.memory_mib < 0.06
