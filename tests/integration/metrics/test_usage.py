"""Usage of a project: sums are exact, latency is by statistic, and nobody sees another project's."""

from collections.abc import Callable
from typing import Any

import pytest
from foundry_core.clock import fixed

Call = Callable[..., Any]
START_MS = 1_767_225_600_000
HOUR_MS = 3_600_000
PERIOD = {"from_ms": START_MS, "to_ms": START_MS + 3 * HOUR_MS}


@pytest.fixture
def usage(metrics_store: Any, call: Call) -> str:
    return f"/projects/{call('POST', '/projects', {'name': 'alpha'}).ok(201)['id']}/metrics/usage"


@pytest.fixture
def loaded(usage: str, row: Any, put: Any, deliver: Any) -> str:
    project_id = usage.split("/")[2]
    rows = [row(project_id=project_id, ts_ms=START_MS + i * 60_000, endpoint="chat" if i % 3 else "code",
                key_id=f"key_{i % 2}", ttft_ms=float(i), tpot_ms=2.0 * i, cost_nanos=i)
            for i in range(101)]  # fmt: skip
    rows += [row(project_id=project_id, ts_ms=START_MS, outcome="rejected", status=429, ttft_ms=None, tpot_ms=None,
                 output_tokens=0, cost_nanos=0, endpoint="chat", deployment_id="")]  # fmt: skip
    deliver(put("metering/all/g/1.jsonl.gz", [*rows, row(project_id="another")]))
    return usage


def test_nothing_yet(usage: str, call: Call) -> None:
    answer = call("GET", usage, **PERIOD).ok()
    assert answer["items"] == [] and answer["total"]["requests"] == 0 and answer["total"]["ttft_ms"] is None


def test_the_total_is_exact(loaded: str, call: Call) -> None:
    total = call("GET", loaded, **PERIOD).ok()["total"]
    assert (total["requests"], total["failed"], total["cost_nanos"]) == (102, 1, 5050)
    assert (total["input_tokens"], total["output_tokens"]) == (1020, 2020)
    assert total["ttft_ms"] == {"samples": 101, "mean": 50.0, "p50": pytest.approx(50, abs=1),
                                "p95": pytest.approx(95, abs=1), "p99": pytest.approx(99, abs=1)}  # fmt: skip
    assert total["tpot_ms"]["mean"] == 100.0


def test_by_endpoint_the_most_expensive_first(loaded: str, call: Call) -> None:
    items = call("GET", loaded, group_by="endpoint", **PERIOD).ok()["items"]
    assert [(one["group"], one["requests"], one["failed"]) for one in items] == [("chat", 68, 1), ("code", 34, 0)]
    assert sum(one["cost_nanos"] for one in items) == 5050


def test_by_key_and_model(loaded: str, call: Call) -> None:
    keys = call("GET", loaded, group_by="key", **PERIOD).ok()["items"]
    assert {one["group"]: one["requests"] for one in keys} == {"key_0": 51, "key_1": 51}
    assert [one["group"] for one in call("GET", loaded, group_by="model", **PERIOD).ok()["items"]] == ["m"]


def test_by_hour_in_order_of_time(loaded: str, call: Call) -> None:
    items = call("GET", loaded, group_by="hour", **PERIOD).ok()["items"]
    assert [(int(one["group"]), one["requests"]) for one in items] == [(START_MS, 61), (START_MS + HOUR_MS, 41)]


def test_the_period_is_whole_hours_and_its_end_is_not_in_it(loaded: str, call: Call) -> None:
    answer = call("GET", loaded, from_ms=START_MS + 1, to_ms=START_MS + HOUR_MS).ok()
    assert (answer["from_ms"], answer["to_ms"]) == (START_MS, START_MS + HOUR_MS)
    assert answer["total"]["requests"] == 61
    with fixed(START_MS + 90 * 60_000):
        answer = call("GET", loaded).ok()
    assert answer["to_ms"] - answer["from_ms"] == 24 * HOUR_MS and answer["total"]["requests"] == 102


def test_pages(loaded: str, call: Call) -> None:
    first = call("GET", loaded, limit=1, **PERIOD).ok()
    second = call("GET", loaded, limit=1, cursor=first["next_cursor"], **PERIOD).ok()
    assert [one["group"] for one in first["items"] + second["items"]] == ["chat", "code"]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"from_ms": START_MS, "to_ms": START_MS}, "empty_period"),
        ({"from_ms": START_MS, "to_ms": START_MS - HOUR_MS}, "empty_period"),
        ({"from_ms": 0, "to_ms": START_MS}, "period_too_long"),
        ({"from_ms": "yesterday"}, "invalid_request"),
        ({"from_ms": 10**30}, "invalid_request"),
        ({"group_by": "project_id; DROP TABLE requests"}, "invalid_request"),
        ({"limit": 0}, "invalid_request"),
        ({"cursor": "-1"}, "bad_cursor"),
        ({"cursor": "٣"}, "bad_cursor"),
    ],
)
def test_a_bad_question(usage: str, call: Call, query: dict[str, Any], code: str) -> None:
    call("GET", usage, **query).problem(422, code)


def test_only_members_ask(loaded: str, call: Call, join: Any) -> None:
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    call("GET", loaded, None, join(other, "owner")).problem(404, "project_not_found")
    call("GET", loaded, None, join(loaded.split("/")[2], "viewer"), **PERIOD).ok()


def test_a_store_that_is_away_is_said_plainly(usage: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from clickhouse_connect.driver.exceptions import OperationalError

    class Away:
        def query(self, *args: Any, **kwargs: Any) -> None:
            raise OperationalError("connection refused by clickhouse.internal:8443")

    monkeypatch.setattr("functions.metrics.warehouse._client", Away)
    problem = call("GET", usage).problem(503, "metrics_unavailable")
    assert "internal" not in problem["detail"]


def test_no_store_at_all(call: Call) -> None:
    project = call("POST", "/projects", {"name": "alpha"}).ok(201)["id"]
    call("GET", f"/projects/{project}/metrics/usage").problem(503, "no_metrics_store")
