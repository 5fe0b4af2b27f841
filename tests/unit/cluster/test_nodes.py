"""Labels of real clusters → devices and device groups."""

import json
from typing import Any

import pytest
from foundry_local.kube import demo_nodes

from functions.cluster import addons
from functions.cluster.nodes import grouped, node_of


def node(
    name: str = "n", labels: dict[str, str] | None = None, allocatable: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    status = {"allocatable": {"cpu": "63500m", "memory": "256Gi", **(allocatable or {})},
              "conditions": [{"type": "Ready", "status": more.pop("ready", "True")}]}  # fmt: skip
    metadata = {"name": name, "labels": labels or {}, "annotations": more.pop("annotations", {})}
    return {"metadata": metadata, "spec": more, "status": status}


H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
EIGHT = {"nvidia.com/gpu": "8"}


def test_the_demo_cluster() -> None:
    nodes, groups = grouped([node_of(obj) for obj in demo_nodes()])
    found = {group.name: (group.device, group.nodes, group.devices_per_node) for group in groups}
    assert found == {
        "h100-sxm-x8": ("h100_sxm", 2, 8), "a100-sxm-x8": ("a100_sxm", 1, 8), "l40s-x4": ("l40s", 1, 4),
    }  # fmt: skip
    assert [one.group for one in nodes if one.name.startswith("cpu")] == [None]
    assert addons.missing(nodes) == []


@pytest.mark.parametrize(
    ("labels", "allocatable", "device"),
    [
        (H100, EIGHT, "h100_sxm"),
        ({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-SHARED"}, EIGHT, "h100_sxm"),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}, EIGHT, "a100_sxm_40gb"),
        ({"nvidia.com/gpu.product": "Tesla-T4"}, EIGHT, "t4"),
        ({"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}, {"amd.com/gpu": "8"}, "mi300x"),
        ({"cloud.google.com/gke-accelerator": "nvidia-l4"}, EIGHT, "l4"),
        ({"karpenter.k8s.aws/instance-gpu-name": "l40s"}, EIGHT, "l40s"),
        ({"nvidia.com/gpu.product": "NVIDIA-Abacus-9000"}, EIGHT, None),
        ({}, EIGHT, None),
        ({}, {}, None),
    ],
)
def test_products(labels: dict[str, str], allocatable: dict[str, str], device: str | None) -> None:
    assert node_of(node(labels=labels, allocatable=allocatable)).device == device


def test_an_unknown_product_has_a_group_without_a_device() -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-Abacus-9000"}
    _, [group] = grouped([node_of(node(labels=labels, allocatable=EIGHT))])
    assert (group.name, group.device, group.product) == ("nvidia-abacus-9000-x8", None, "NVIDIA-Abacus-9000")
    assert group.node_selector == labels


def test_only_nodes_that_take_pods_count() -> None:
    facts = [node("a", H100, EIGHT), node("b", H100, EIGHT, ready="False"),
             node("c", H100, EIGHT, unschedulable=True)]  # fmt: skip
    nodes, [group] = grouped([node_of(obj) for obj in facts])
    assert group.nodes == 1 and group.devices == 8 and len(nodes) == 3


def test_other_numbers_of_gpus_are_another_group() -> None:
    _, groups = grouped([node_of(node("a", H100, EIGHT)), node_of(node("b", H100, {"nvidia.com/gpu": "4"}))])
    assert [group.name for group in groups] == ["h100-sxm-x4", "h100-sxm-x8"]


def test_pods_are_kept_to_nodes_of_their_group() -> None:
    def labelled(name: str, count: str) -> Any:
        labels = {**H100, "nvidia.com/gpu.count": count}
        return node_of(node(name, labels, {"nvidia.com/gpu": count}))

    _, groups = grouped([labelled("a", "8"), labelled("b", "4")])
    assert [group.node_selector["nvidia.com/gpu.count"] for group in groups] == ["4", "8"]
    _, [mixed] = grouped([labelled("a", "8"), node_of(node("b", H100, EIGHT))])
    assert mixed.node_selector == H100  # a label that one of them lacks would keep pods from it


@pytest.mark.parametrize(
    ("register", "count"),
    [
        (json.dumps([{"id": f"GPU-{n}", "count": 10, "health": n > 0} for n in range(4)]), 3),
        ("GPU-1,10,46068,100,NVIDIA-L40S,0,true:GPU-2,10,46068,100,NVIDIA-L40S,0,false:", 1),
        ("[]", 0), ("{}", 0), ("null", 0), ("", 40),
    ],
)  # fmt: skip
def test_hami_multiplies_what_is_offered(register: str, count: int) -> None:
    annotations = {"hami.io/node-nvidia-register": register}
    found = node_of(node(labels=H100, allocatable={"nvidia.com/gpu": "40"}, annotations=annotations))
    assert found.gpu_count == count


def test_owners_taints_are_tolerated_and_sick_nodes_are_not() -> None:
    taints = [{"key": "sku", "value": "gpu", "effect": "NoSchedule"},
              {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]  # fmt: skip
    _, [group] = grouped([node_of(node(labels=H100, allocatable=EIGHT, taints=taints))])
    assert group.tolerations == [{"key": "sku", "operator": "Exists", "effect": "NoSchedule"}]


@pytest.mark.parametrize(
    ("labels", "allocatable", "missing"),
    [
        (H100, EIGHT, False),
        (H100, {}, True),  # labelled, but no device plugin
        ({}, EIGHT, True),  # offered, but nobody says what it is
        ({"feature.node.kubernetes.io/pci-10de.present": "true"}, {}, True),
        ({"feature.node.kubernetes.io/pci-1002.present": "true"}, {}, False),
        ({"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}, {"amd.com/gpu": "8"}, False),
        ({}, {}, False),
    ],
)
def test_where_the_operator_is_needed(labels: dict[str, str], allocatable: dict[str, str], missing: bool) -> None:
    assert bool(addons.missing([node_of(node(labels=labels, allocatable=allocatable))])) == missing


def test_quantities() -> None:
    found = node_of(node())
    assert (found.cpu_millis, found.memory_bytes) == (63_500, 256 * 2**30)
