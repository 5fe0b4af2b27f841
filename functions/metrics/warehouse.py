"""ClickHouse: the only file that talks to it. Offline it is chdb in this process; only the DSN differs.

Delivery is at least once, the numbers are exact:

* ``requests`` replaces rows of the same event, so a row counts once however often and in whatever batch it arrives.
  The deduplication token merely spares a repeated batch the insert.
* ``usage_hourly`` is never added to: ``refresh`` computes the touched hours anew from ``requests``. Of several states
  of one group the one with most requests wins; since rows are only ever added, that is the newest, whichever loader
  wrote last and wherever an earlier one stopped.
* Copies that went to shadow deployments are rows of ``requests`` only: no client asked for them, and they are free.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect import common
from clickhouse_connect.driver.exceptions import Error
from foundry_core.errors import TransientError, Unavailable
from foundry_core.settings import settings

from functions.metrics.schemas import Row

DIMENSIONS = ("endpoint", "key_id", "model", "deployment_id", "source")
COLUMNS = tuple(Row.model_fields)
_QUANTILES = "0.5, 0.95, 0.99"
_DEDUPLICATED_INSERTS = 10_000

# Every statement may run again; a change of the schema is another statement at the end.
_SCHEMA = (
    f"""
    CREATE TABLE IF NOT EXISTS requests (
        event_id String, ts_ms Int64, gateway_id LowCardinality(String), project_id LowCardinality(String),
        key_id LowCardinality(String), endpoint LowCardinality(String), deployment_id LowCardinality(String),
        model LowCardinality(String), provider LowCardinality(String), route LowCardinality(String), stream Bool,
        status UInt16, outcome LowCardinality(String), error_code LowCardinality(String), input_tokens Int64,
        output_tokens Int64, cached_tokens Int64, usage_source LowCardinality(String), ttft_ms Nullable(Float64),
        tpot_ms Nullable(Float64), e2e_ms Nullable(Float64), queue_ms Nullable(Float64), cost_nanos Int64,
        retries UInt16, wasted_tokens Int64, source LowCardinality(String), request_id String,
        hour DateTime('UTC') MATERIALIZED toStartOfHour(toDateTime(intDiv(ts_ms, 1000), 'UTC'))
    ) ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(hour) ORDER BY (project_id, hour, event_id)
    SETTINGS non_replicated_deduplication_window = {_DEDUPLICATED_INSERTS}
    """,
    f"""
    CREATE TABLE IF NOT EXISTS usage_hourly (
        project_id LowCardinality(String), hour DateTime('UTC'),
        {", ".join(f"{name} LowCardinality(String)" for name in DIMENSIONS)},
        requests UInt64, failed UInt64, input_tokens Int64, output_tokens Int64, cached_tokens Int64,
        wasted_tokens Int64, cost_nanos Int64, ttft_samples UInt64, ttft_sum_ms Float64,
        ttft_ms AggregateFunction(quantilesTDigest({_QUANTILES}), Float64), tpot_samples UInt64, tpot_sum_ms Float64,
        tpot_ms AggregateFunction(quantilesTDigest({_QUANTILES}), Float64)
    ) ENGINE = ReplacingMergeTree(requests) PARTITION BY toYYYYMM(hour)
    ORDER BY (project_id, hour, {", ".join(DIMENSIONS)})
    """,
)  # fmt: skip


def _latency(name: str) -> str:
    timed = f"outcome = 'ok' AND {name}_ms IS NOT NULL"
    value = f"assumeNotNull({name}_ms)"
    return (
        f"countIf({timed}) AS {name}_samples, sumIf({value}, {timed}) AS {name}_sum_ms, "
        f"quantilesTDigestStateIf({_QUANTILES})({value}, {timed}) AS {name}_state"
    )


_REFRESH = f"""
    INSERT INTO usage_hourly
    SELECT project_id, hour, {", ".join(DIMENSIONS)}, count() AS requests,
        countIf(outcome NOT IN ('ok', 'cached', 'cancelled')) AS failed, sum(input_tokens), sum(output_tokens),
        sum(cached_tokens), sum(wasted_tokens), sum(cost_nanos), {_latency("ttft")}, {_latency("tpot")}
    FROM requests FINAL WHERE (project_id, hour) IN {{touched:Array(Tuple(String, DateTime('UTC')))}}
        AND outcome != 'shadow'
    GROUP BY project_id, hour, {", ".join(DIMENSIONS)}
"""  # noqa: S608
# A replica that answers must know what was just inserted.
_READ_AFTER_WRITE = {"select_sequential_consistency": 1}


def insert(rows: Sequence[Row], token: str) -> None:
    """Rows of one batch; ``token`` names its content."""
    if not rows:
        return
    columns = [[getattr(row, name) for row in rows] for name in COLUMNS]
    with _spoken():
        _client().insert(
            "requests", columns, column_names=COLUMNS, column_oriented=True,
            settings={"insert_deduplication_token": token, "insert_deduplicate": 1, "async_insert": 0},
        )  # fmt: skip


def refresh(touched: Iterable[tuple[str, int]]) -> None:
    """Compute hours anew; ``touched`` holds project ids with the hour's start in seconds."""
    hours = sorted(set(touched))
    if hours:
        with _spoken():
            _client().command(_REFRESH, parameters={"touched": hours}, settings=_READ_AFTER_WRITE)


def query(sql: str, parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows by column name."""
    with _spoken():
        yield from _client().query(sql, parameters=parameters).named_results()


@contextmanager
def _spoken() -> Iterator[None]:
    try:
        yield
    except Error as error:
        raise TransientError("The metrics store did not answer.", code="metrics_unavailable") from error


def _client() -> Any:
    dsn = settings().clickhouse_dsn
    if not dsn:
        raise Unavailable("This platform has no metrics store.", code="no_metrics_store")
    return open_client(dsn)


@lru_cache(maxsize=1)
def open_client(dsn: str) -> Any:
    """A client of ``chdb://…`` or ``clickhouse[s]://user:password@host[:port]/database``, its schema in place."""
    common.set_setting("autogenerate_session_id", False)  # one client, several threads
    logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)
    embedded = dsn.startswith("chdb:")
    secure: dict[str, Any] = {} if embedded else {"secure": urlsplit(dsn).scheme in {"clickhouses", "https"}}
    client = clickhouse_connect.get_client(dsn=dsn, **secure)
    for statement in _SCHEMA:
        client.command(statement)
    return client
