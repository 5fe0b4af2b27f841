"""The clusters that daily recommendations are made for."""

from typing import Any

import pytest
from foundry_core.events import new_event
from foundry_core.runs import Run
from foundry_core.tasks import TaskContext

from functions.cluster.schemas import Cluster, DeviceGroup
from functions.cluster.store import clusters as store
from functions.cluster.tasks import daily

RUN = Run(id="run_1", kind="recommend", subject_id="2026-09-21", steps=[], created_by="u", created_at_ms=0)


def keep(name: str, status: str = "ready", device: str | None = "h100_sxm", nodes: int = 1) -> None:
    group = DeviceGroup(name="g", device=device, product="p", nodes=nodes, devices_per_node=8, gpu_resource="r",
                        node_selector={"a": "b"})  # fmt: skip
    cluster = Cluster.model_validate(
        {"id": f"cls_{name}", "name": name, "kind": "eks", "status": status, "server": "s", "device_groups": [group],
         "created_by": "u", "created_at_ms": 0}
    )  # fmt: skip
    store.insert(cluster, {}, new_event("foundry.cluster.created.v1", source="cluster", subject=cluster.id, data={}))


def listed() -> dict[str, Any]:
    return daily.list_clusters(TaskContext(RUN, "list_clusters", {}))


def test_clusters_that_are_stale_or_useless_are_left_out_with_the_reason() -> None:
    keep("good")
    keep("old", status="failed")
    keep("moving", status="registering")
    keep("exotic", device=None)
    keep("empty", nodes=0)
    output = listed()
    facts = {"name": "g", "device": "h100_sxm", "nodes": 1, "devices_per_node": 8, "price_nanos_per_hour": None}
    assert output["clusters"] == [{"id": "cls_good", "name": "good", "device_groups": [facts]}]
    reasons = {one["name"]: one["reason"] for one in output["left_out"]}
    assert reasons.keys() == {"old", "moving", "exotic", "empty"}
    assert "failed" in reasons["old"] and "no ready node" in reasons["empty"]


def test_the_number_of_clusters_is_bounded_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daily, "MAX_CLUSTERS", 2)
    for name in ("a", "b", "c"):
        keep(name)
    output = listed()
    assert len(output["clusters"]) == 2 and len(output["left_out"]) == 1


def test_device_groups_that_would_not_fit_a_flow_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daily, "_MAX_BYTES", 10)
    keep("a")
    assert listed()["clusters"] == [] and "10 bytes" in listed()["left_out"][0]["reason"]
