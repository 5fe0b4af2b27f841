"""Sums over metering rows, for Prometheus: what is scraped is the same that is billed."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from gateway.core.shapes import Row

# "tuple[float, ...]" is not for the reader: mypyc loses constants that are tuples of a known number of floats.
LATENCY_BOUNDS_MS: Final[tuple[float, ...]] = (
    5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 30_000.0, 60_000.0,
)  # fmt: skip
TPOT_BOUNDS_MS: Final[tuple[float, ...]] = (
    1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 75.0, 100.0, 200.0, 500.0,
)  # fmt: skip
QUEUE_BOUNDS_MS: Final[tuple[float, ...]] = (0.1, 0.5, 1.0, 5.0, 25.0, 100.0, 500.0, 2000.0, 10_000.0, 60_000.0)
_place: Final = bisect_left


class Histogram:
    """Counts per upper bound in milliseconds."""

    __slots__ = ("bounds_ms", "buckets", "sum_ms")

    def __init__(self, bounds_ms: tuple[float, ...]) -> None:
        self.bounds_ms = bounds_ms
        self.buckets = [0] * (len(bounds_ms) + 1)
        self.sum_ms = 0.0

    def add(self, value_ms: float | None) -> None:
        if value_ms is not None:
            self.sum_ms += value_ms
            self.buckets[_place(self.bounds_ms, value_ms)] += 1

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

    def add(self, row: Row) -> None:
        self.requests += 1
        self.retries += row.retries
        self.cost_nanos += row.cost_nanos
        self.input_tokens += row.input_tokens
        self.cached_tokens += row.cached_tokens
        self.output_tokens += row.output_tokens
        self.wasted_tokens += row.wasted_tokens
        self.ttft.add(row.ttft_ms)
        self.tpot.add(row.tpot_ms)
        self.e2e.add(row.e2e_ms)
        self.queue.add(row.queue_ms)


class Telemetry:
    """One series per endpoint, status and outcome."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, int, str], Series] = {}

    def add(self, row: Row) -> None:
        series = self.series.get((row.endpoint, row.status, row.outcome))
        if series is None:
            series = self.series[row.endpoint, row.status, row.outcome] = Series()
        series.add(row)
