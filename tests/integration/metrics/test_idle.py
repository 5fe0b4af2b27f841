"""Whether a deployment was used lately: what the rows say, and what they cannot say yet."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from foundry_core.clock import iso
from foundry_core.events import new_event

AT_MS = 1_767_225_600_000
MINUTE_MS = 60_000
DISTRIBUTION = {"mean": 1.0, "p50": 1.0, "p95": 1.0, "p99": 1.0, "lo": 1.0, "hi": 1.0}
PLAN = {
    "id": "plan_1", "cost_nanos_per_hour": 1,
    "predicted": {"ttft_ms": DISTRIBUTION, "tpot_ms": DISTRIBUTION, "output_tokens_per_s": 1.0},
}  # fmt: skip
READY = {"project_id": "p1", "deployment_id": "dep_1", "cluster_id": "c", "model_id": "m", "endpoint_name": "chat"}


@pytest.fixture
def tell(lambda_context: Any) -> Callable[..., None]:
    """An event of another domain comes."""

    def told(type_: str, data: dict[str, Any], at_ms: int = AT_MS) -> None:
        from functions.metrics.handler import on_event

        event = new_event(type_, source="test", subject="dep_1", data=data).model_dump() | {"time": iso(at_ms)}
        record = {"messageId": "m", "eventSource": "aws:sqs", "body": json.dumps({"detail": event})}
        assert on_event({"Records": [record]}, lambda_context) == {"batchItemFailures": []}

    return told


@pytest.fixture
def idle(tell: Any) -> Callable[[], list[Any]]:
    """Asked whether it was idle for half an hour; what is told about that."""

    def asked() -> list[Any]:
        from functions.metrics.store import MetricsOutbox

        question = {"project_id": "p1", "deployment_id": "dep_1", "sleep_after_s": 1800, "as_of_ms": AT_MS}
        tell("foundry.deployment.idle_asked.v1", question)
        return [item.event for item in MetricsOutbox.scan()]

    return asked


def ready(tell: Any, minutes_ago: int) -> None:
    tell("foundry.deployment.ready.v1", {**READY, "plan": PLAN}, AT_MS - minutes_ago * MINUTE_MS)


@pytest.mark.parametrize(
    ("last", "idle_then"),
    [
        ({"ts_ms": AT_MS - 46 * MINUTE_MS}, True),
        ({"ts_ms": AT_MS - 44 * MINUTE_MS}, False),  # its own half an hour, and what rows may be late
        ({"ts_ms": AT_MS - 50 * MINUTE_MS, "e2e_ms": 10.0 * MINUTE_MS}, False),  # it ended later
        ({"ts_ms": AT_MS - MINUTE_MS, "outcome": "shadow"}, False),
        ({"ts_ms": AT_MS - MINUTE_MS, "deployment_id": "dep_2"}, True),
    ],
)
def test_what_the_rows_say(
    metrics_store: Any, row: Any, put: Any, deliver: Any, tell: Any, idle: Any, last: Any, idle_then: bool
) -> None:
    ready(tell, 600)
    assert deliver(put("metering/all/g/1.jsonl.gz", [row(**last)])) == []
    told = [(event["type"], event["data"]) for event in idle()]
    data = {"project_id": "p1", "deployment_id": "dep_1", "as_of_ms": AT_MS}
    assert told == ([("foundry.deployment.idle.v1", data)] if idle_then else [])


def test_one_that_woke_lately_is_given_time(metrics_store: Any, tell: Any, idle: Any) -> None:
    assert idle() == []  # nothing is known of it
    ready(tell, 44)
    assert idle() == []


def test_without_a_metrics_store_nobody_knows(aws_tables: None, tell: Any, idle: Any) -> None:
    ready(tell, 600)
    assert idle() == []
