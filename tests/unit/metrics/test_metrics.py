"""Parsing of hostile batches, and the arithmetic of predicted against measured."""

import gzip
import zlib
from typing import Any

import pytest
from foundry_core.clock import fixed
from foundry_core.errors import Invalid
from hypothesis import given
from hypothesis import strategies as st

from functions.metrics import batches, service, warehouse
from functions.metrics.batches import BadBatch, Batch, decompress, parse
from functions.metrics.compare import against, verification
from functions.metrics.schemas import DeploymentVerified, Distribution, Measured, PlanFacts

HOUR_MS = 3_600_000
SPREAD = {"mean": 10.0, "p50": 9.0, "p95": 15.0, "p99": 18.0, "lo": 8.0, "hi": 12.0}
PLAN = PlanFacts.model_validate(
    {"id": "p", "predicted": {"ttft_ms": SPREAD, "tpot_ms": SPREAD, "output_tokens_per_s": 100.0},
     "cost_nanos_per_hour": 3_600_000_000, "cost_nanos_per_million_output_tokens": 10_000_000_000}
)  # fmt: skip


@given(st.binary(max_size=2000))
def test_whatever_the_bytes_are_the_answer_is_plain(data: bytes) -> None:
    try:
        plain = decompress(data)
    except BadBatch:
        return
    assert plain == (gzip.decompress(data) if data else b"")


@given(st.binary(max_size=2000), st.integers(0, 30))
def test_what_was_compressed_comes_back_or_is_cut_short(plain: bytes, missing: int) -> None:
    data = gzip.compress(plain)
    if missing == 0:
        assert decompress(data) == plain
    else:
        with pytest.raises(BadBatch):
            decompress(data[:-missing] or b"\0")


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zlib.compressobj(9, wbits=31)
    data = b"".join(bomb.compress(b"\0" * 2**20) for _ in range(50)) + bomb.flush()
    with pytest.raises(BadBatch, match="decompressed"):
        decompress(data, limit=2**20)
    with pytest.raises(BadBatch, match="decompressed"):
        decompress(gzip.compress(b"a") * 2**10, limit=1000)
    assert len(decompress(gzip.compress(b"a" * 1000), limit=1000)) == 1000


@given(st.binary(max_size=300))
def test_every_line_is_either_a_row_or_put_aside(line: bytes) -> None:
    batch = Batch("t")
    parse(line, batch)
    filled = [one for one in line.split(b"\n") if one.strip()]
    assert len(batch.rows) + len(batch.bad) == len(filled)


def test_no_measurement_no_error() -> None:
    answer = against(PLAN, Measured(source="live", samples=0))
    assert answer.concurrency is None
    assert {one.error_percent for one in answer.comparisons} == {None}


def test_the_sign_says_whether_we_promised_too_much() -> None:
    slow = Distribution(samples=3, mean=20.0, p50=20.0, p95=20.0, p99=20.0)
    measured = Measured(source="live", samples=3, ttft_ms=slow, output_tokens=1000, busy_ms=20_000, in_flight_ms=40_000)
    found = {(one.metric, one.statistic): one for one in against(PLAN, measured).comparisons}
    assert found["ttft_ms", "mean"].error_percent == -50.0 and found["ttft_ms", "mean"].within_interval is False
    assert found["ttft_ms", "p99"].error_percent == -10.0
    assert found["output_tokens_per_s", "mean"].measured == 50.0
    assert found["output_tokens_per_s", "mean"].error_percent == 100.0
    assert found["cost_nanos_per_million_output_tokens", "mean"].measured == 20_000_000_000
    assert found["cost_nanos_per_million_output_tokens", "mean"].error_percent == -50.0


def test_a_verification_is_one_request() -> None:
    event = DeploymentVerified(project_id="p", deployment_id="d", ttft_ms=11.0, e2e_ms=100.0, output_tokens=5)
    answer = against(PLAN, verification(event))
    assert (answer.source, answer.samples, answer.concurrency) == ("verification", 1, 1.0)
    assert answer.comparisons[0].within_interval is True and answer.note


@given(st.integers(0, 4 * 10**12), st.integers(1, 399 * 24 * HOUR_MS))
def test_a_period_covers_what_was_asked_in_whole_hours(from_ms: int, length_ms: int) -> None:
    assert service.period(from_ms, from_ms + length_ms) == (from_ms, from_ms + length_ms)
    start, end = service.whole_hours(from_ms, from_ms + length_ms)
    assert start <= from_ms and end >= from_ms + length_ms
    assert start % HOUR_MS == end % HOUR_MS == 0 and end - start < length_ms + 2 * HOUR_MS


def test_the_current_hour_is_part_of_the_last_day() -> None:
    with fixed(10 * 24 * HOUR_MS):  # the first millisecond of an hour
        start, end = service.whole_hours(None, None)
        assert service.period(None, None) == (9 * 24 * HOUR_MS + 1, 10 * 24 * HOUR_MS + 1)
    assert end == 10 * 24 * HOUR_MS + HOUR_MS and end - start == 24 * HOUR_MS
    with pytest.raises(Invalid):
        service.period(5 * HOUR_MS, 4 * HOUR_MS)


@pytest.mark.parametrize(
    ("dsn", "secure"),
    [("clickhouses://u:p%40w@ch.example.com/foundry", True), ("https://u:p@ch.example.com:8443/foundry", True),
     ("clickhouse://u:p@localhost:8123/foundry", False), ("chdb:///data/ch", None)],
)  # fmt: skip
def test_only_the_dsn_differs(monkeypatch: pytest.MonkeyPatch, dsn: str, secure: bool | None) -> None:
    seen: dict[str, Any] = {}

    class Fake:
        def command(self, statement: str) -> None:
            assert "IF NOT EXISTS" in statement

    def get_client(**options: Any) -> Fake:
        seen.update(options)
        return Fake()

    monkeypatch.setattr("clickhouse_connect.get_client", get_client)
    warehouse.open_client.__wrapped__(dsn)
    assert seen["dsn"] == dsn and seen.get("secure") is secure


def test_a_row_belongs_to_its_hour() -> None:
    from functions.metrics.loader import hour_of
    from functions.metrics.schemas import Row

    row = Row(event_id="e", ts_ms=1_767_229_199_999, gateway_id="g", project_id="p")
    assert hour_of(row) == ("p", 1_767_225_600)
    assert batches.PREFIX == "metering/"
