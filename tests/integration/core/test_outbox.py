"""An event is as durable as the write it belongs to, and reaches the bus at least once."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from foundry_core import aws, outbox
from foundry_core.clock import fixed

Call = Callable[..., Any]


@pytest.fixture
def stream(aws_tables: None) -> Callable[[], list[dict[str, Any]]]:
    """The app table's stream as Lambda gets it."""

    def read() -> list[dict[str, Any]]:
        client = aws.client("dynamodbstreams")
        (found,) = client.list_streams(TableName="foundry-test-app")["Streams"]
        shards = client.describe_stream(StreamArn=found["StreamArn"])["StreamDescription"]["Shards"]
        iterator = client.get_shard_iterator(
            StreamArn=found["StreamArn"], ShardId=shards[0]["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records = client.get_records(ShardIterator=iterator)["Records"]
        return [{**record, "eventSource": "aws:dynamodb"} for record in records]

    return read


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The bus: entries that it took, and how many it refuses first."""
    bus = SimpleNamespace(entries=[], refuses=0)

    def put_events(Entries: list[dict[str, Any]]) -> dict[str, int]:
        if bus.refuses:
            bus.refuses -= 1
            return {"FailedEntryCount": 1}
        bus.entries += Entries
        return {"FailedEntryCount": 0}

    monkeypatch.setattr(outbox, "client", lambda service: SimpleNamespace(put_events=put_events))
    return bus


def relay(records: list[dict[str, Any]], context: Any) -> list[str]:
    failures = outbox.relay({"Records": records}, context)["batchItemFailures"]
    return [str(failure["itemIdentifier"]) for failure in failures]


def test_a_write_reaches_the_bus(call: Call, stream: Any, bus: Any, lambda_context: Any) -> None:
    with fixed(1_800_000_000_000):
        project = call("POST", "/projects", {"name": "alpha"}, "developer").ok(201)["id"]
    assert relay(stream(), lambda_context) == []
    (entry,) = bus.entries
    assert (entry["EventBusName"], entry["Source"], entry["DetailType"]) == (
        "foundry-test", "foundry.app", "foundry.project.created.v1"
    )  # fmt: skip
    detail = json.loads(entry["Detail"])
    assert detail["data"] == {"project_id": project, "by": "u-developer", "name": "alpha"}
    assert (detail["specversion"], detail["subject"], detail["time"]) == ("1.0", project, "2027-01-15T08:00:00.000Z")


def test_what_was_refused_is_nowhere(call: Call, stream: Any, bus: Any, lambda_context: Any) -> None:
    call("POST", "/projects", {"name": "alpha"}).ok(201)
    call("POST", "/projects", {"name": "alpha"}).problem(409, "name_taken")
    relay(stream(), lambda_context)
    assert len(bus.entries) == 1


def test_a_bus_that_refuses_gets_it_again_from_there(call: Call, stream: Any, bus: Any, lambda_context: Any) -> None:
    for name in ("a", "b", "c"):
        call("POST", "/projects", {"name": name}).ok(201)
    records = stream()
    bus.refuses = 1
    (first_failed,) = relay(records, lambda_context)
    place = next(i for i, one in enumerate(records) if one["dynamodb"]["SequenceNumber"] == first_failed)
    assert relay(records[place:], lambda_context) == []
    names = [json.loads(entry["Detail"])["data"]["name"] for entry in bus.entries]
    assert sorted(set(names)) == ["a", "b", "c"]


def test_an_outbox_item_that_expires_is_no_event(call: Call, stream: Any, bus: Any, lambda_context: Any) -> None:
    from functions.app.store.table import AppOutbox

    call("POST", "/projects", {"name": "alpha"}).ok(201)
    for item in AppOutbox.scan():
        item.delete()
    removals = [record for record in stream() if record["eventName"] == "REMOVE"]
    assert removals and relay(removals, lambda_context) == [] and bus.entries == []


def test_the_real_bus_takes_it(call: Call, stream: Any, lambda_context: Any) -> None:
    call("POST", "/projects", {"name": "alpha"}).ok(201)
    assert relay(stream(), lambda_context) == []
