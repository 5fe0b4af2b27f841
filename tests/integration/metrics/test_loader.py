"""Whatever is delivered, however often and wherever it broke off: raw rows and hourly numbers are exact."""

import gzip
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from foundry_core import aws

BUCKET = "foundry-test-metering"
HOUR_MS = 3_600_000
Row = Callable[..., dict[str, Any]]


def raw_count(store: Any) -> int:
    return int(next(iter(store.query("SELECT count() AS n FROM requests FINAL", {})))["n"])


def rollup(store: Any) -> dict[str, int]:
    names = ("requests", "failed", "input_tokens", "output_tokens", "cost_nanos", "ttft_samples", "tpot_samples")
    sums = ", ".join(f"sum({name}) AS n_{name}" for name in names)
    row = next(iter(store.query(f"SELECT {sums} FROM usage_hourly FINAL", {})))
    return {name: int(row[f"n_{name}"]) for name in names}


def quarantined() -> dict[str, list[dict[str, Any]]]:
    s3 = aws.client("s3")
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET, Prefix="quarantine/").get("Contents", [])]
    bodies = {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}
    return {key: [json.loads(line) for line in body.splitlines()] for key, body in bodies.items()}


def test_rows_arrive_and_add_up(metrics_store: Any, row: Row, put: Any, deliver: Any) -> None:
    rows = [row(cost_nanos=i) for i in range(100)] + [row(outcome="failed", ttft_ms=None, tpot_ms=None, status=502)]
    assert deliver(put("metering/all/g/1.jsonl.gz", rows)) == []
    assert raw_count(metrics_store) == 101
    assert rollup(metrics_store) == {
        "requests": 101, "failed": 1, "input_tokens": 1010, "output_tokens": 2020, "cost_nanos": 4950 + 1000,
        "ttft_samples": 100, "tpot_samples": 100,
    }  # fmt: skip
    assert quarantined() == {}


def test_copies_to_shadows_are_kept_and_count_for_nobody(metrics_store: Any, row: Row, put: Any, deliver: Any) -> None:
    rows = [row(), row(outcome="shadow", cost_nanos=0, deployment_id="dep_2", status=502)]
    assert deliver(put("metering/all/g/1.jsonl.gz", rows)) == []
    assert raw_count(metrics_store) == 2
    sums = rollup(metrics_store)
    assert (sums["requests"], sums["failed"], sums["output_tokens"]) == (1, 0, 20)
    assert quarantined() == {}


def test_redelivery_changes_nothing(metrics_store: Any, row: Row, put: Any, deliver: Any) -> None:
    first, second = (put(f"metering/all/g/{n}.jsonl.gz", [row() for _ in range(10)]) for n in (1, 2))
    deliver(first, second)
    exact = rollup(metrics_store)
    for keys in ([first], [second, first], [first, first]):
        assert deliver(*keys) == []
    assert rollup(metrics_store) == exact and raw_count(metrics_store) == exact["requests"] == 20


def test_an_event_counts_once_in_whatever_batch_it_comes(metrics_store: Any, row: Row, put: Any, deliver: Any) -> None:
    rows = [row() for _ in range(10)]
    deliver(put("metering/all/g/1.jsonl.gz", rows[:7]))
    deliver(put("metering/all/g/2.jsonl.gz", rows[3:]))
    deliver(put("metering/all/g/2.jsonl.gz", rows))  # the same name with other bytes
    assert raw_count(metrics_store) == 10 and rollup(metrics_store)["cost_nanos"] == 10_000


def test_a_loader_that_died_between_raw_and_rollup(
    metrics_store: Any, row: Row, put: Any, deliver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(put("metering/all/g/0.jsonl.gz", [row() for _ in range(5)]))
    keys = [put(f"metering/all/g/{n}.jsonl.gz", [row() for _ in range(5)]) for n in (1, 2)]

    def broken(touched: object) -> None:
        raise RuntimeError("the connection is gone")

    with monkeypatch.context() as patch:
        patch.setattr(metrics_store, "refresh", broken)
        assert deliver(*keys) == keys
    assert raw_count(metrics_store) == 15 and rollup(metrics_store)["requests"] == 5
    assert deliver(*keys) == []
    assert raw_count(metrics_store) == rollup(metrics_store)["requests"] == 15


def test_only_what_failed_is_delivered_again(
    metrics_store: Any, row: Row, put: Any, deliver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = (put(f"metering/all/g/{n}.jsonl.gz", [row()]) for n in ("good", "bad"))
    insert = metrics_store.insert

    def picky(rows: Any, token: str) -> None:
        if "bad" in token:
            raise RuntimeError("no")
        insert(rows, token)

    with monkeypatch.context() as patch:
        patch.setattr(metrics_store, "insert", picky)
        assert deliver(good, bad) == [bad]
    assert rollup(metrics_store)["requests"] == 1
    assert deliver(bad) == [] and rollup(metrics_store)["requests"] == 2


def test_a_slow_loader_does_not_undo_a_faster_one(metrics_store: Any, row: Row, put: Any, deliver: Any) -> None:
    """The stale state is written last, and still the newer one counts."""
    deliver(put("metering/all/g/1.jsonl.gz", [row() for _ in range(4)]))
    stale = "CREATE TABLE stale AS usage_hourly"
    client = metrics_store._client()
    client.command(stale)
    client.command("INSERT INTO stale SELECT * FROM usage_hourly FINAL")
    deliver(put("metering/all/g/2.jsonl.gz", [row() for _ in range(3)]))
    client.command("INSERT INTO usage_hourly SELECT * FROM stale")
    assert rollup(metrics_store)["requests"] == 7
    client.command("OPTIMIZE TABLE usage_hourly FINAL")
    assert rollup(metrics_store)["requests"] == 7


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_deliveries_and_failures(
    metrics_store: Any, row: Row, put: Any, deliver: Any, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A queue that delivers at least once, a store that fails at random: at the end everything counts once."""
    dice = random.Random(seed)
    events = [row(ts_ms=1_767_225_600_000 + dice.randrange(3 * HOUR_MS), endpoint=dice.choice(["a", "b"]))
              for _ in range(60)]  # fmt: skip
    queue = [put(f"metering/all/g/{n}.jsonl.gz", dice.sample(events, 20)) for n in range(6)]
    queue.append(put("metering/all/g/all.jsonl.gz", events))
    whole = {name: getattr(metrics_store, name) for name in ("insert", "refresh")}
    for name, function in whole.items():

        def flaky(*args: Any, function: Any = function) -> None:
            before, after = dice.random() < 0.2, dice.random() < 0.2
            if before:
                raise RuntimeError("before")
            function(*args)
            if after:
                raise RuntimeError("after")

        monkeypatch.setattr(metrics_store, name, flaky)
    again = queue * 2
    while again:
        dice.shuffle(again)
        now, again = again[:3], again[3:]
        again += deliver(*now)
    assert raw_count(metrics_store) == 60
    assert rollup(metrics_store) == {
        "requests": 60, "failed": 0, "input_tokens": 600, "output_tokens": 1200, "cost_nanos": 60_000,
        "ttft_samples": 60, "tpot_samples": 60,
    }  # fmt: skip


BAD_LINES = [
    b"not json",
    b"{}",
    b"[]",
    b"\xff\xfe",
    b"[" * 20_000,
    b'{"event_id": "' + b"x" * 70_000 + b'"}',
]


def test_bad_rows_are_put_aside_and_the_good_ones_count(metrics_store: Any, row: Row, put: Any, deliver: Any) -> None:
    wrong = [
        row(ts_ms="1767225600000"), row(ts_ms=0), row(ts_ms=99_999_999_999_999), row(input_tokens=-1),
        row(output_tokens=1.5), row(cost_nanos=10**19), row(outcome="great"), row(source="mine"), row(event_id=""),
        row(ttft_ms=-1.0), row(project_id=None), row(status="200"), row(model="m" * 300),
    ]  # fmt: skip
    infinite = json.dumps(row(e2e_ms=float("inf"))).encode()
    lines = [json.dumps(row()).encode(), infinite, *(json.dumps(one).encode() for one in wrong), *BAD_LINES, b"",
             json.dumps(row(unknown_field={"a": 1})).encode()]  # fmt: skip
    key = put("metering/all/g/1.jsonl.gz", raw=gzip.compress(b"\n".join(lines)))
    assert deliver(key) == [] and deliver(key) == []
    assert raw_count(metrics_store) == 2
    (aside,) = quarantined().values()
    assert len(aside) == len(wrong) + len(BAD_LINES) + 1
    assert all(one["reason"] and one["line"] for one in aside)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"plain text", "not gzip"),
        (gzip.compress(b"{}" * 1000)[:-9], "cut short"),
        (gzip.compress(b" " * (65 * 1024 * 1024), 1), "when decompressed"),
        (random.Random(1).randbytes(17 * 1024 * 1024), "larger than 16,777,216 bytes"),
        (gzip.compress(b"\n") + b"rubbish behind it", "not gzip"),
    ],
    ids=["text", "cut", "bomb", "large", "tail"],
)
def test_a_useless_object_is_put_aside_once_and_for_all(
    metrics_store: Any, put: Any, deliver: Any, raw: bytes, reason: str
) -> None:
    assert deliver(put("metering/all/g/1.jsonl.gz", raw=raw)) == []
    (aside,) = quarantined().values()
    assert reason in aside[0]["reason"] and raw_count(metrics_store) == 0


def test_several_gzip_members_are_one_batch(metrics_store: Any, row: Row, put: Any, deliver: Any) -> None:
    members = b"".join(gzip.compress(json.dumps(row()).encode() + b"\n") for _ in range(3))
    deliver(put("metering/all/g/1.jsonl.gz", raw=members))
    assert raw_count(metrics_store) == 3


def test_what_is_not_ours_is_left_alone(metrics_store: Any, row: Row, put: Any, deliver: Any) -> None:
    put("other/1.jsonl.gz", [row()])
    assert deliver("other/1.jsonl.gz", "metering/all/g/gone.jsonl.gz") == []
    assert deliver(put("metering/all/g/1.jsonl.gz", [row()]), bucket="somebody-elses") == []
    assert raw_count(metrics_store) == 0 and quarantined() == {}


def test_s3s_test_message_and_a_message_that_is_no_json(metrics_store: Any, lambda_context: Any) -> None:
    from functions.metrics.handler import loader

    records = [{"messageId": "test", "body": json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"})},
               {"messageId": "bad", "body": "?"}]  # fmt: skip
    assert loader({"Records": records}, lambda_context) == {"batchItemFailures": [{"itemIdentifier": "bad"}]}


def test_keys_arrive_url_encoded(metrics_store: Any, row: Row, put: Any, deliver: Any) -> None:
    put("metering/all/gw 1/a+b.jsonl.gz", [row()])
    assert deliver("metering/all/gw+1/a%2Bb.jsonl.gz") == []
    assert raw_count(metrics_store) == 1
