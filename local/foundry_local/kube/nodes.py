"""Node objects with the labels that real GPU clusters carry.

Sources: NVIDIA GPU Feature Discovery (k8s-device-plugin, internal/lm), NVIDIA GPU operator (state_manager.go), Node
Feature Discovery, HAMi's device registration protocol; memory figures as `nvidia-smi` reports them, in MiB.
"""

import json
from dataclasses import dataclass
from uuid import NAMESPACE_DNS, uuid5

from foundry_local.kube.types import Obj, now_text

_DRIVER, _CUDA = "580.126.20", "13.0"
_GIB_KI = 1024 * 1024
_GFD_TIMESTAMP = "1767225600"
_OPERANDS = (
    "container-toolkit", "dcgm", "dcgm-exporter", "device-plugin", "driver", "gpu-feature-discovery",
    "node-status-exporter", "operator-validator",
)  # fmt: skip
_INTEL_FLAGS = (
    "ADX AESNI AMXBF16 AMXINT8 AMXTILE AVX AVX2 AVX512BF16 AVX512BITALG AVX512BW AVX512CD AVX512DQ AVX512F "
    "AVX512FP16 AVX512IFMA AVX512VBMI AVX512VBMI2 AVX512VL AVX512VNNI AVX512VPOPCNTDQ AVXVNNI CMPXCHG8 FMA3 FXSR "
    "FXSROPT GFNI LAHF MOVBE MOVDIR64B MOVDIRI OSXSAVE SHA SYSCALL VAES VPCLMULQDQ WBNOINVD X87 XSAVE"
)
_AMD_FLAGS = (
    "ADX AESNI AVX AVX2 CLZERO CMPXCHG8 CPBOOST FMA3 FXSR FXSROPT LAHF MOVBE OSXSAVE SHA SSE4A SYSCALL WBNOINVD X87 "
    "XSAVE"
)


@dataclass(frozen=True, slots=True)
class GpuProduct:
    """A GPU as GPU Feature Discovery labels it."""

    product: str
    memory_mib: int
    family: str
    compute: tuple[int, int]
    mig_capable: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """The host around the GPUs; `cpu_model` is NFD's (vendor, family, id)."""

    name: str
    cpus: int
    memory_gib: int
    cpu_model: tuple[str, int, int]


H100 = GpuProduct("NVIDIA-H100-80GB-HBM3", 81559, "hopper", (9, 0), True)
A100 = GpuProduct("NVIDIA-A100-SXM4-80GB", 81920, "ampere", (8, 0), True)
L40S = GpuProduct("NVIDIA-L40S", 46068, "ada-lovelace", (8, 9), False)
_SAPPHIRE_RAPIDS = ("Intel", 6, 143)
_ROME = ("AMD", 23, 49)
DGX_H100 = Machine("DGXH100", 224, 2048, _SAPPHIRE_RAPIDS)
DGX_A100 = Machine("DGXA100", 256, 2048, _ROME)
R760XA = Machine("PowerEdge-R760xa", 128, 512, _SAPPHIRE_RAPIDS)
R660 = Machine("PowerEdge-R660", 64, 256, _SAPPHIRE_RAPIDS)


def demo_nodes() -> list[Obj]:
    """2 × 8 H100-80GB, 1 × 8 A100-80GB, 1 × 4 L40S (managed by HAMi, one slice per GPU), 1 CPU node."""
    return [
        node("h100-0", 11, DGX_H100, H100, 8),
        node("h100-1", 12, DGX_H100, H100, 8),
        node("a100-0", 13, DGX_A100, A100, 8),
        node("l40s-0", 14, R760XA, L40S, 4, hami_slices=1),
        node("cpu-0", 15, R660),
    ]


def node(
    name: str,
    host: int,
    machine: Machine,
    gpu: GpuProduct | None = None,
    count: int = 0,
    *,
    hami_slices: int = 0,
    taints: list[Obj] | None = None,
) -> Obj:
    """A ready node.

    Args:
        host: last octet of its address.
        hami_slices: HAMi's `deviceSplitCount`; 0 means that HAMi does not manage the node. The node then reports
            `count × slices` of `nvidia.com/gpu`, as HAMi's device plugin does.
    """
    labels = _base_labels(name) | _nfd_labels(machine, gpu)
    annotations = {
        "node.alpha.kubernetes.io/ttl": "0",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    }
    if gpu is not None:
        labels |= gpu_labels(gpu, count, machine)
        annotations["nvidia.com/gpu-driver-upgrade-enabled"] = "true"
    if gpu is not None and hami_slices:
        labels["gpu"] = "on"
        annotations |= hami_annotations(name, gpu, count, hami_slices)
    features = sorted(key.partition("/")[2] for key in labels if key.startswith("feature.node.kubernetes.io/"))
    annotations["nfd.node.kubernetes.io/feature-labels"] = ",".join(features)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {"podCIDR": f"10.244.{host}.0/24"} | ({"taints": taints} if taints else {}),
        "status": _status(name, host, machine, count * (hami_slices or 1)),
    }


def _base_labels(name: str) -> dict[str, str]:
    return {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
    }


def _nfd_labels(machine: Machine, gpu: GpuProduct | None) -> dict[str, str]:
    vendor, family, model = machine.cpu_model
    flags = _INTEL_FLAGS if vendor == "Intel" else _AMD_FLAGS
    facts = {f"cpu-cpuid.{flag}": "true" for flag in flags.split()}
    facts |= {
        "cpu-hardware_multithreading": "true",
        "cpu-model.family": str(family),
        "cpu-model.id": str(model),
        "cpu-model.vendor_id": vendor,
        "kernel-config.NO_HZ": "true",
        "kernel-config.NO_HZ_IDLE": "true",
        "kernel-version.full": "5.15.0-176-generic",
        "kernel-version.major": "5",
        "kernel-version.minor": "15",
        "kernel-version.revision": "0",
        "memory-numa": "true",
        "pci-102b.present": "true",
        "storage-nonrotationaldisk": "true",
        "system-os_release.ID": "ubuntu",
        "system-os_release.VERSION_ID": "22.04",
        "system-os_release.VERSION_ID.major": "22",
        "system-os_release.VERSION_ID.minor": "04",
    }
    if gpu is not None:
        facts |= {"pci-10de.present": "true", "pci-15b3.present": "true"}
    return {f"feature.node.kubernetes.io/{key}": value for key, value in facts.items()}


def gpu_labels(gpu: GpuProduct, count: int, machine: Machine) -> dict[str, str]:
    """The labels of GPU Feature Discovery and of the GPU operator."""
    driver, cuda = _DRIVER.split("."), _CUDA.split(".")
    facts = {
        "cuda.driver-version.full": _DRIVER,
        "cuda.driver-version.major": driver[0],
        "cuda.driver-version.minor": driver[1],
        "cuda.driver-version.revision": driver[2],
        "cuda.driver.major": driver[0],
        "cuda.driver.minor": driver[1],
        "cuda.driver.rev": driver[2],
        "cuda.runtime-version.full": _CUDA,
        "cuda.runtime-version.major": cuda[0],
        "cuda.runtime-version.minor": cuda[1],
        "cuda.runtime.major": cuda[0],
        "cuda.runtime.minor": cuda[1],
        "gfd.timestamp": _GFD_TIMESTAMP,
        "gpu-driver-upgrade-state": "upgrade-done",
        "gpu.compute.major": str(gpu.compute[0]),
        "gpu.compute.minor": str(gpu.compute[1]),
        "gpu.count": str(count),
        "gpu.family": gpu.family,
        "gpu.machine": machine.name,
        "gpu.memory": str(gpu.memory_mib),
        "gpu.mode": "compute",
        "gpu.present": "true",
        "gpu.product": gpu.product,
        "gpu.replicas": "1",
        "gpu.sharing-strategy": "none",
        "mig.capable": str(gpu.mig_capable).lower(),
        "mig.strategy": "single",
        "mps.capable": "false",
        "vgpu.present": "false",
    }
    facts |= {f"gpu.deploy.{operand}": "true" for operand in _OPERANDS}
    if gpu.mig_capable:
        facts |= {"gpu.deploy.mig-manager": "true", "mig.config": "all-disabled", "mig.config.state": "success"}
    return {f"nvidia.com/{key}": value for key, value in facts.items()}


def hami_annotations(name: str, gpu: GpuProduct, count: int, slices: int) -> dict[str, str]:
    """HAMi's device registration (JSON since 2.7; zero values are left out) and its handshake."""
    devices = []
    for index in range(count):
        device: Obj = {"id": f"GPU-{uuid5(NAMESPACE_DNS, f'{name}-{index}')}"}
        if index:
            device["index"] = index
        device |= {"count": slices, "devmem": gpu.memory_mib, "devcore": 100}
        device["type"] = gpu.product.replace("NVIDIA-", "NVIDIA ", 1)
        if numa := index * 2 // count:
            device["numa"] = numa
        devices.append(device | {"mode": "hami-core", "health": True})
    stamp = now_text().replace("T", " ").removesuffix("Z")
    return {
        "hami.io/node-handshake": f"Requesting_{stamp}",
        "hami.io/node-nvidia-register": json.dumps(devices, separators=(",", ":")),
    }


def _status(name: str, host: int, machine: Machine, devices: int) -> Obj:
    memory_ki = machine.memory_gib * _GIB_KI
    capacity = {
        "cpu": str(machine.cpus),
        "ephemeral-storage": "3747995624Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": f"{memory_ki}Ki",
        "pods": "110",
    }
    # Without system reservations the kubelet keeps 100 MiB of memory and a tenth of the disk for eviction.
    allocatable = capacity | {"memory": f"{memory_ki - 102400}Ki", "ephemeral-storage": "3454152744014"}
    if devices:
        capacity["nvidia.com/gpu"] = allocatable["nvidia.com/gpu"] = str(devices)
    return {
        "capacity": capacity,
        "allocatable": allocatable,
        "conditions": _conditions(),
        "addresses": [
            {"type": "InternalIP", "address": f"192.168.20.{host}"},
            {"type": "Hostname", "address": name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": uuid5(NAMESPACE_DNS, name).hex,
            "systemUUID": str(uuid5(NAMESPACE_DNS, f"{name}-system")),
            "bootID": str(uuid5(NAMESPACE_DNS, f"{name}-boot")),
            "kernelVersion": "5.15.0-176-generic",
            "osImage": "Ubuntu 22.04.5 LTS",
            "containerRuntimeVersion": "containerd://2.0.5",
            "kubeletVersion": "v1.33.4",
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
    }


def _conditions() -> list[Obj]:
    now = now_text()
    facts = (
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    )
    return [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        for kind, status, reason, message in facts
    ]
