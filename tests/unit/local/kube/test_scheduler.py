"""Placement by devices, labels and taints, and the words in which a pod that fits nowhere hears why."""

from typing import Any

import pytest
from foundry_local.kube.events import Recorder
from foundry_local.kube.nodes import R660, demo_nodes, node
from foundry_local.kube.resources import EVENTS, NAMESPACES, NODES, PODS
from foundry_local.kube.scheduler import Scheduler, requests_of, tolerates
from foundry_local.kube.store import Store
from foundry_local.kube.types import condition
from hypothesis import given, settings
from hypothesis import strategies as st


def make(nodes: list[dict[str, Any]] | None = None) -> tuple[Store, Scheduler]:
    store = Store()
    store.create(NAMESPACES, {"metadata": {"name": "n"}})
    for item in demo_nodes() if nodes is None else nodes:
        store.create(NODES, item)
    return store, Scheduler(store, Recorder(store))


def pod(name: str, gpus: int = 0, cpu: str = "1", **spec: Any) -> dict[str, Any]:
    requests = {"cpu": cpu, "memory": "1Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    container = {"name": "c", "image": "i", "resources": {"requests": requests}}
    body = {"containers": [container]} | spec
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n"}, "spec": body,
        "status": {"phase": "Pending"},
    }  # fmt: skip


def placed(store: Store, name: str) -> str | None:
    found = store.peek(PODS, "n", name)
    assert found is not None
    return found["spec"].get("nodeName")


def test_devices_run_out() -> None:
    store, scheduler = make()
    for number in range(4):
        store.create(PODS, pod(f"p{number}", gpus=8))
    scheduler.reconcile()
    nodes = [placed(store, f"p{number}") for number in range(4)]
    assert set(nodes[:3]) == {"h100-0", "h100-1", "a100-0"} and nodes[3] is None
    waiting = store.get(PODS, "n", "p3")
    found = condition(waiting, "PodScheduled")
    assert found is not None and found["reason"] == "Unschedulable"
    assert found["message"] == "0/5 nodes are available: 5 Insufficient nvidia.com/gpu."
    assert [event["reason"] for event in store.select(EVENTS, "n")].count("FailedScheduling") == 1
    scheduler.reconcile()
    assert len(store.select(EVENTS, "n")) == 4, "the same reason is reported once"


def test_selector_and_affinity() -> None:
    store, scheduler = make()
    store.create(PODS, pod("sel", gpus=1, nodeSelector={"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}))
    term = {"matchExpressions": [{"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["81560"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    store.create(PODS, pod("aff", gpus=1, affinity={"nodeAffinity": required}))
    store.create(PODS, pod("none", nodeSelector={"nvidia.com/gpu.product": "H900"}))
    scheduler.reconcile()
    assert placed(store, "sel") == placed(store, "aff") == "a100-0"
    message = condition(store.get(PODS, "n", "none"), "PodScheduled")
    assert message is not None and "5 node(s) didn't match Pod's node affinity/selector" in message["message"]


def test_pods_without_devices_leave_device_nodes_alone() -> None:
    store, scheduler = make()
    store.create(PODS, pod("plain"))
    scheduler.reconcile()
    assert placed(store, "plain") == "cpu-0"


def test_small_pods_share_a_node_so_that_large_ones_fit() -> None:
    store, scheduler = make()
    for number in range(4):
        store.create(PODS, pod(f"s{number}", gpus=1, nodeSelector={"nvidia.com/gpu.family": "hopper"}))
    scheduler.reconcile()
    assert len({placed(store, f"s{number}") for number in range(4)}) == 1


def test_taints() -> None:
    tainted = node("t", 20, R660, taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}])
    store, scheduler = make([tainted])
    store.create(PODS, pod("no"))
    store.create(PODS, pod("yes", tolerations=[{"key": "team", "operator": "Equal", "value": "a"}]))
    scheduler.reconcile()
    assert (placed(store, "no"), placed(store, "yes")) == (None, "t")
    message = condition(store.get(PODS, "n", "no"), "PodScheduled")
    assert message is not None and "had untolerated taint {team: a}" in message["message"]


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, True), ({"key": "k", "operator": "Exists"}, True), ({"key": "k", "value": "v"}, True),
        ({"key": "k", "value": "w"}, False), ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)  # fmt: skip
def test_tolerates(toleration: dict[str, str], expected: bool) -> None:
    assert tolerates(toleration, {"key": "k", "value": "v", "effect": "NoSchedule"}) is expected


def test_cordoned_and_no_nodes() -> None:
    cordoned = node("c", 20, R660)
    cordoned["spec"]["unschedulable"] = True
    store, scheduler = make([cordoned])
    store.create(PODS, pod("p"))
    scheduler.reconcile()
    message = condition(store.get(PODS, "n", "p"), "PodScheduled")
    assert message is not None and message["message"] == "0/1 nodes are available: 1 node(s) were unschedulable."


@settings(max_examples=30)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=20))
def test_no_node_is_ever_overcommitted_and_nothing_waits_that_would_fit(sizes: list[int]) -> None:
    store, scheduler = make()
    for number, gpus in enumerate(sizes):
        store.create(PODS, pod(f"p{number}", gpus=gpus))
    scheduler.reconcile()
    free = {"h100-0": 8, "h100-1": 8, "a100-0": 8, "l40s-0": 4, "cpu-0": 0}
    waiting = []
    for item in store.select(PODS):
        gpus = int(requests_of(item).get("nvidia.com/gpu", 0))
        where = item["spec"].get("nodeName")
        if where:
            free[where] -= gpus
        else:
            waiting.append(gpus)
    assert min(free.values()) >= 0
    assert all(gpus > max(free.values()) for gpus in waiting)
