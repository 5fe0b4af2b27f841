"""Predicted against measured, from events that come at least once and in any order."""

import json
from collections.abc import Callable
from typing import Any

import pytest

Call = Callable[..., Any]
START_MS = 1_767_225_600_000
PERIOD = {"from_ms": START_MS, "to_ms": START_MS + 3_600_000}
SPREAD = {"mean": 100.0, "p50": 95.0, "p95": 150.0, "p99": 180.0, "lo": 90.0, "hi": 110.0}
PLAN = {
    "id": "plan_1", "predicted": {"ttft_ms": SPREAD, "tpot_ms": {**SPREAD, "mean": 20.0, "lo": 18.0, "hi": 22.0},
                                  "output_tokens_per_s": 1000.0, "more": 1},
    "cost_nanos_per_hour": 36_000_000_000, "cost_nanos_per_million_output_tokens": 10_000_000_000,
    "method": "regressor", "in_domain": True, "tp": 8,
}  # fmt: skip


def message(
    type_: str, data: dict[str, Any], *, id_: str = "evt_1", time: str = "2026-01-01T00:00:00Z"
) -> dict[str, Any]:
    envelope = {"specversion": "1.0", "id": id_, "type": type_, "source": "foundry.cluster", "subject": "dep_1",
                "time": time, "data": data}  # fmt: skip
    body = json.dumps({"detail-type": type_, "source": "foundry.cluster", "detail": envelope})
    return {"messageId": id_, "body": body, "eventSource": "aws:sqs", "attributes": {}}


@pytest.fixture
def project(metrics_store: Any, call: Call) -> str:
    return str(call("POST", "/projects", {"name": "alpha"}).ok(201)["id"])


@pytest.fixture
def ready(project: str) -> dict[str, Any]:
    return {"project_id": project, "deployment_id": "dep_1", "cluster_id": "cls_1", "model_id": "mdl_1",
            "endpoint_name": "chat", "plan": PLAN, "price": {}, "source": "twin"}  # fmt: skip


@pytest.fixture
def consume(lambda_context: Any) -> Callable[..., list[str]]:
    def consumed(*messages: dict[str, Any]) -> list[str]:
        from functions.metrics.handler import on_event

        failures = on_event({"Records": list(messages)}, lambda_context)["batchItemFailures"]
        return [failure["itemIdentifier"] for failure in failures]

    return consumed


def path(project: str, deployment: str = "dep_1") -> str:
    return f"/projects/{project}/metrics/deployments/{deployment}/accuracy"


def by_metric(item: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{one['metric']}.{one['statistic']}": one for one in item["comparisons"]}


def test_predicted_against_measured(
    project: str, ready: Any, consume: Any, call: Call, row: Any, put: Any, deliver: Any
) -> None:
    consume(message("foundry.deployment.ready.v1", ready))
    # Two requests at a time, 1 s each, without a gap: 10 s with 2 × 10 × 400 tokens.
    rows = [row(project_id=project, ts_ms=START_MS + (i // 2) * 1000, ttft_ms=80.0, tpot_ms=25.0, e2e_ms=1000.0,
                output_tokens=400) for i in range(20)]  # fmt: skip
    deliver(put("metering/all/g/1.jsonl.gz", [*rows, row(project_id=project, outcome="failed", e2e_ms=9e6)]))
    answer = call("GET", path(project), **PERIOD).ok()
    assert (answer["plan_id"], answer["method"], answer["in_domain"]) == ("plan_1", "regressor", True)
    (twin,) = answer["items"]
    assert (twin["source"], twin["samples"], twin["concurrency"]) == ("twin", 20, 2.0)
    assert "not that the simulator is right" in twin["note"]
    found = by_metric(twin)
    assert found["ttft_ms.mean"] == {
        "metric": "ttft_ms", "statistic": "mean", "predicted": 100.0, "interval": {"lo": 90.0, "hi": 110.0},
        "measured": 80.0, "error_percent": 25.0, "within_interval": False, "samples": 20,
    }  # fmt: skip
    assert found["tpot_ms.mean"]["error_percent"] == pytest.approx(-20.0)
    assert found["ttft_ms.p95"]["measured"] == 80.0 and found["ttft_ms.p95"]["interval"] is None
    assert found["output_tokens_per_s.mean"]["measured"] == pytest.approx(800.0)
    assert found["output_tokens_per_s.mean"]["error_percent"] == pytest.approx(25.0)
    # 36 $/h at 800 tokens/s is 12.5 $ per million.
    assert found["cost_nanos_per_million_output_tokens.mean"]["measured"] == pytest.approx(12_500_000_000)


def test_sources_are_kept_apart(
    project: str, ready: Any, consume: Any, call: Call, row: Any, put: Any, deliver: Any
) -> None:
    verified = {**ready, "ttft_ms": 100.0, "tpot_ms": 10.0, "e2e_ms": 500.0, "output_tokens": 40}
    consume(message("foundry.deployment.verified.v1", verified, id_="evt_0"))
    consume(message("foundry.deployment.ready.v1", ready))
    deliver(put("metering/all/g/1.jsonl.gz", [row(project_id=project, source="live"), row(project_id=project)]))
    items = {one["source"]: one for one in call("GET", path(project), **PERIOD).ok()["items"]}
    assert {source: one["samples"] for source, one in items.items()} == {"verification": 1, "live": 1, "twin": 1}
    assert by_metric(items["verification"])["ttft_ms.mean"]["within_interval"] is True
    assert items["live"]["note"] is None


def test_nothing_measured_yet(project: str, ready: Any, consume: Any, call: Call) -> None:
    consume(message("foundry.deployment.ready.v1", ready))
    assert call("GET", path(project)).ok()["items"] == []


def test_addresses_of_one_deployment_are_one_deployment(
    project: str, ready: Any, consume: Any, call: Call, row: Any, put: Any, deliver: Any
) -> None:
    consume(message("foundry.deployment.ready.v1", ready))
    rows = [row(project_id=project, deployment_id=f"dep_1/{n}") for n in range(2)]
    deliver(put("metering/all/g/1.jsonl.gz", rows))
    assert call("GET", path(project), **PERIOD).ok()["items"][0]["samples"] == 2


def test_events_may_come_twice_and_late(project: str, ready: Any, consume: Any, call: Call) -> None:
    new = message(
        "foundry.deployment.ready.v1", {**ready, "plan": {**PLAN, "id": "new"}}, id_="b", time="2026-01-02T00:00:00Z"
    )
    old = message(
        "foundry.deployment.ready.v1", {**ready, "plan": {**PLAN, "id": "old"}}, id_="a", time="2026-01-01T00:00:00Z"
    )
    for one in (old, new, new, old):
        assert consume(one) == []
    assert call("GET", path(project)).ok()["plan_id"] == "new"


def test_unknown_events_are_left_and_broken_ones_come_again(project: str, ready: Any, consume: Any, call: Call) -> None:
    other = message("foundry.project.created.v1", {"anything": 1}, id_="other")
    broken = message("foundry.deployment.ready.v1", {"deployment_id": "dep_2"}, id_="broken")
    garbage = {**other, "messageId": "garbage", "body": "{"}
    assert consume(other, broken, message("foundry.deployment.ready.v1", ready), garbage) == ["broken", "garbage"]
    call("GET", path(project)).ok()


def test_a_deployment_of_another_project_does_not_exist_here(
    project: str, ready: Any, consume: Any, call: Call
) -> None:
    consume(message("foundry.deployment.ready.v1", ready))
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    call("GET", path(other)).problem(404, "deployment_not_found")
    call("GET", path(project, "dep_none")).problem(404, "deployment_not_found")
