"""ClickHouse itself, in this process (chdb), with a database of its own for each test; the bucket on moto."""

import gzip
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import clickhouse_connect
import pytest
from foundry_core import aws
from foundry_core.settings import settings

BUCKET = "foundry-test-metering"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    client = clickhouse_connect.get_client(dsn="chdb://memory")
    yield client
    client.close()


@pytest.fixture
def metrics_store(aws_tables: None, engine: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The warehouse module on an empty database; the metering bucket is there."""
    from functions.metrics import warehouse

    database = f"test_{next(_numbers)}"
    engine.command(f"CREATE DATABASE {database}")
    aws.client("s3").create_bucket(Bucket=BUCKET)
    monkeypatch.setenv("CLICKHOUSE_DSN", f"chdb://memory/{database}")
    monkeypatch.setenv("METERING_BUCKET", BUCKET)
    settings.cache_clear()
    yield warehouse
    warehouse.open_client(settings().clickhouse_dsn).close()
    warehouse.open_client.cache_clear()
    engine.command(f"DROP DATABASE {database}")


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    """A sound metering row as a gateway writes it; arguments replace fields."""
    ids = itertools.count()

    def made(**fields: Any) -> dict[str, Any]:
        return {
            "event_id": f"e{next(ids)}", "ts_ms": 1_767_225_600_000, "gateway_id": "pod-1", "project_id": "p1",
            "key_id": "key_1", "endpoint": "chat", "deployment_id": "dep_1", "model": "m", "provider": "openai",
            "route": "/v1/chat/completions", "stream": True, "status": 200, "outcome": "ok", "error_code": "",
            "input_tokens": 10, "output_tokens": 20, "cached_tokens": 0, "usage_source": "upstream", "ttft_ms": 50.0,
            "tpot_ms": 10.0, "e2e_ms": 240.0, "queue_ms": 0.0, "cost_nanos": 1000, "retries": 0, "wasted_tokens": 0,
            "source": "twin", "request_id": "r", **fields,
        }  # fmt: skip

    return made


@pytest.fixture
def put() -> Callable[..., str]:
    """``put(key, rows)``: a batch object as a gateway uploads it, or ``raw`` bytes; returns the key."""

    def stored(key: str, rows: list[dict[str, Any]] | None = None, raw: bytes | None = None) -> str:
        body = gzip.compress("\n".join(json.dumps(one) for one in rows or []).encode()) if raw is None else raw
        aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)
        return key

    return stored


@pytest.fixture
def deliver(lambda_context: Any) -> Callable[..., list[str]]:
    """Deliver keys, one message each, to the loader; returns the messages that it wants again."""

    def delivered(*keys: str, bucket: str = BUCKET) -> list[str]:
        from functions.metrics.handler import loader

        records = [
            {"messageId": key, "body": json.dumps({"Records": [{"s3": {"bucket": {"name": bucket},
                                                                      "object": {"key": key}}}]})}
            for key in keys
        ]  # fmt: skip
        answer = loader({"Records": records}, lambda_context)
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    return delivered
