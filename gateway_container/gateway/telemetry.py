"""Sums over metering rows, for Prometheus: what is scraped is the same that is billed."""

from collections.abc import Iterator
from typing import Final

import msgspec

from gateway.core.shapes import Row

Bounds = tuple[float, ...]
LATENCY_BOUNDS_MS: Final[Bounds] = (
    5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 30_000.0, 60_000.0,
)  # fmt: skip
TPOT_BOUNDS_MS: Final[Bounds] = (
    1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 75.0, 100.0, 200.0, 500.0,
)  # fmt: skip
QUEUE_BOUNDS_MS: Final[Bounds] = (0.1, 0.5, 1.0, 5.0, 25.0, 100.0, 500.0, 2000.0, 10_000.0, 60_000.0)
_values: Final = msgspec.structs.astuple


class Histogram:
    """Counts per upper bound in milliseconds."""

    __slots__ = ("bounds_ms", "buckets", "sum_ms")

    def __init__(self, bounds_ms: Bounds) -> None:
        self.bounds_ms = list(bounds_ms)
        self.buckets = [0] * (len(bounds_ms) + 1)
        self.sum_ms = 0.0

    def add(self, value_ms: float) -> None:
        self.sum_ms += value_ms
        place = 0
        for bound_ms in self.bounds_ms:
            if value_ms <= bound_ms:
                break
            place += 1
        self.buckets[place] = self.buckets[place] + 1  # += would be slow, compiled

    def samples(self, labels: str) -> Iterator[tuple[str, str, float]]:
        """Suffix of the name, labels and value of every line."""
        total = 0
        for bound, count in zip((*map("{:g}".format, self.bounds_ms), "+Inf"), self.buckets, strict=True):
            total += count
            yield "_bucket", f'{labels},le="{bound}"', total
        yield "_sum", labels, round(self.sum_ms, 3)
        yield "_count", labels, total


class Series:
    """Sums over the rows of one endpoint, status and outcome."""

    __slots__ = ("cached_tokens", "cost_nanos", "e2e", "input_tokens", "output_tokens", "queue", "requests", "retries",
                 "tpot", "ttft", "wasted_tokens")  # fmt: skip

    def __init__(self) -> None:
        self.requests = self.retries = self.cost_nanos = 0
        self.input_tokens = self.cached_tokens = self.output_tokens = self.wasted_tokens = 0
        self.ttft, self.e2e = Histogram(LATENCY_BOUNDS_MS), Histogram(LATENCY_BOUNDS_MS)
        self.tpot, self.queue = Histogram(TPOT_BOUNDS_MS), Histogram(QUEUE_BOUNDS_MS)

    def add(
        self, retries: int, cost_nanos: int, given: int, cached: int, made: int, wasted: int,
        ttft_ms: float | None, tpot_ms: float | None, e2e_ms: float, queue_ms: float,
    ) -> None:  # fmt: skip
        self.requests += 1
        self.retries += retries
        self.cost_nanos += cost_nanos
        self.input_tokens += given
        self.cached_tokens += cached
        self.output_tokens += made
        self.wasted_tokens += wasted
        if ttft_ms is not None:
            self.ttft.add(ttft_ms)
        if tpot_ms is not None:
            self.tpot.add(tpot_ms)
        self.e2e.add(e2e_ms)
        self.queue.add(queue_ms)


class Telemetry:
    """One series per endpoint, status and outcome."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, int, str], Series] = {}
        # Of the last row: most are like the one before.
        self._labels: tuple[str, int, str] = ("", 0, "")
        self._last = Series()

    def add(self, rows: list[Row]) -> None:
        for row in rows:
            self._add(row)

    def _add(self, row: Row) -> None:
        # The whole row at once: compiled code reads single attributes of a struct slowly.
        (_, _, _, _, _, endpoint, _, _, _, _, _, status, outcome, _, given, made, cached, _,
         ttft_ms, tpot_ms, e2e_ms, queue_ms, cost_nanos, retries, wasted, _, _) = _values(row)  # fmt: skip
        labels: tuple[str, int, str] = (endpoint, status, outcome)
        if labels != self._labels:
            self._last = self.series.setdefault(labels, Series())
            self._labels = labels
        self._last.add(retries, cost_nanos, given, cached, made, wasted, ttft_ms, tpot_ms, e2e_ms, queue_ms)
