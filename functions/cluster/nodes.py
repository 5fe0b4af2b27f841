"""Nodes as the Kubernetes API describes them → devices and device groups.

Labels: GPU Feature Discovery (``nvidia.com/gpu.*``), AMD's node labeller (``amd.com/gpu.*``), Node Feature Discovery
(PCI vendors), and what clouds and Karpenter set. HAMi multiplies ``nvidia.com/gpu``; its annotation has the real count.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from foundry_sim.facts import devices
from kubernetes.utils.quantity import parse_quantity

from functions.cluster.schemas import DeviceGroup, Node

Obj = dict[str, Any]
_RESOURCES = ("nvidia.com/gpu", "amd.com/gpu", "habana.ai/gaudi")
_PRODUCTS = (
    "nvidia.com/gpu.product",
    "amd.com/gpu.product-name",
    "beta.amd.com/gpu.product-name",
    "cloud.google.com/gke-accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "k8s.amazonaws.com/accelerator",
)
_NVIDIA_PCI = (
    "feature.node.kubernetes.io/pci-10de.present",
    "feature.node.kubernetes.io/pci-0300_10de.present",
    "feature.node.kubernetes.io/pci-0302_10de.present",
)
_COUNT = "nvidia.com/gpu.count"
_HAMI = "hami.io/node-nvidia-register"
_SHARED = "-SHARED"  # what GPU Feature Discovery appends under time-slicing
_OWN_TAINTS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "node-role.kubernetes.io/")


def node_of(obj: Obj) -> Node:
    """One node. Unknown products have no device; a node without GPUs has no product."""
    labels: dict[str, str] = obj["metadata"].get("labels") or {}
    status: Obj = obj.get("status") or {}
    spec: Obj = obj.get("spec") or {}
    allocatable: dict[str, str] = status.get("allocatable") or {}
    resource = next((name for name in _RESOURCES if name in allocatable), "")
    label, product = _product(labels)
    found = devices.find(product.removesuffix(_SHARED)) if product else None
    return Node(
        name=obj["metadata"]["name"],
        device=found.name if found else None,
        product=product or resource,
        gpu_count=_gpu_count(obj, allocatable.get(resource, "0")) if resource else 0,
        gpu_resource=resource,
        nvidia=_is_nvidia(labels, resource, found),
        ready=_is_ready(status),
        schedulable=not spec.get("unschedulable", False),
        instance_type=labels.get("node.kubernetes.io/instance-type", ""),
        zone=labels.get("topology.kubernetes.io/zone", ""),
        cpu_millis=int(parse_quantity(allocatable.get("cpu", "0")) * 1000),
        memory_bytes=int(parse_quantity(allocatable.get("memory", "0"))),
        node_selector={name: labels[name] for name in (label, _COUNT) if labels.get(name)} if label else {},
        taints=_taints(spec),
    )


def _is_nvidia(labels: dict[str, str], resource: str, found: devices.Device | None) -> bool:
    listed = any(labels.get(name) == "true" for name in _NVIDIA_PCI)
    return listed or resource == "nvidia.com/gpu" or bool(found and found.vendor.lower() == "nvidia")


def _product(labels: dict[str, str]) -> tuple[str, str]:
    label = next((name for name in _PRODUCTS if labels.get(name)), "")
    return label, labels.get(label, "")


def _gpu_count(obj: Obj, allocatable: str) -> int:
    """Physical GPUs that pods may use."""
    register = (obj["metadata"].get("annotations") or {}).get(_HAMI)
    return _hami_count(register) if register else int(parse_quantity(allocatable))


def _hami_count(register: str) -> int:
    """Healthy devices in HAMi's annotation: a JSON list, before v2.5 ``uuid,count,mem,cores,type,numa,health:…``."""
    try:
        listed = json.loads(register)
    except ValueError:
        entries = [entry.split(",") for entry in register.split(":") if entry]
        return sum(fields[6:7] != ["false"] for fields in entries)
    found = [device for device in listed if isinstance(device, dict)] if isinstance(listed, list) else []
    return sum(bool(device.get("health", True)) for device in found)


def _is_ready(status: Obj) -> bool:
    conditions = {item["type"]: item["status"] for item in status.get("conditions") or []}
    return conditions.get("Ready") == "True"


def _taints(spec: Obj) -> list[dict[str, str]]:
    """Taints that an owner put on GPU nodes; what Kubernetes itself sets on a sick node is not tolerated."""
    wanted = [
        {name: str(taint[name]) for name in ("key", "value", "effect") if taint.get(name)}
        for taint in spec.get("taints") or []
    ]
    return [taint for taint in wanted if not taint["key"].startswith(_OWN_TAINTS)]


def grouped(nodes: Iterable[Node]) -> tuple[list[Node], list[DeviceGroup]]:
    """Nodes with their group's name, and the groups: same product, same number of GPUs per node."""
    named = [node.model_copy(update={"group": group_name(node)}) for node in nodes]
    names = sorted({node.group for node in named if node.group})
    return named, [_group(name, [node for node in named if node.group == name]) for name in names]


def group_name(node: Node) -> str | None:
    """For example ``h100-sxm-x8``."""
    if not node.gpu_count:
        return None
    slug = re.sub(r"[^a-z0-9]+", "-", (node.device or node.product).lower()).strip("-")
    return f"{slug}-x{node.gpu_count}"


def _group(name: str, members: list[Node]) -> DeviceGroup:
    first = members[0]
    return DeviceGroup(
        name=name, device=first.device, product=first.product, nodes=sum(node.usable for node in members),
        devices_per_node=first.gpu_count, gpu_resource=first.gpu_resource, node_selector=_selector(members),
        tolerations=_tolerations(members),
    )  # fmt: skip


def _selector(members: list[Node]) -> dict[str, str]:
    """What all of them have in common: a label that only some of them carry would keep pods from the others."""
    others = [node.node_selector for node in members]
    return {name: value for name, value in others[0].items() if all(one.get(name) == value for one in others)}


def _tolerations(members: list[Node]) -> list[dict[str, str]]:
    keys = {(taint["key"], taint.get("effect", "")) for node in members for taint in node.taints}
    return [
        {"key": key, "operator": "Exists", **({"effect": effect} if effect else {})} for key, effect in sorted(keys)
    ]
