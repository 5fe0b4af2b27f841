"""Sums over metering rows, for Prometheus: what is scraped is the same that is billed."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from gateway.core.shapes import Row

LATENCY_BOUNDS_MS: Final = (
    5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 30_000.0, 60_000.0,
)  # fmt: skip
TPOT_BOUNDS_MS: Final = (1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 75.0, 100.0, 200.0, 500.0)
QUEUE_BOUNDS_MS: Final = (0.1, 0.5, 1.0, 5.0, 25.0, 100.0, 500.0, 2000.0, 10_000.0, 60_000.0)
TOGETHER: Final = 256  # rows that are added up in one go: cheaper than one by one, and too short to delay anybody


class Histogram:
    """Counts per upper bound in milliseconds."""

    __slots__ = ("bounds_ms", "buckets", "sum_ms")

    def __init__(self, bounds_ms: tuple[float, ...]) -> None:
        self.bounds_ms = bounds_ms
        self.buckets = [0] * (len(bounds_ms) + 1)
        self.sum_ms = 0.0

    def add(self, values_ms: Iterable[float | None]) -> None:
        """None: that was not measured."""
        values = sorted([value for value in values_ms if value is not None])
        self.sum_ms += sum(values)
        ends = [0, *[bisect_right(values, bound) for bound in self.bounds_ms], len(values)]
        self.buckets = [count + end - start for count, (start, end) in zip(self.buckets, pairwise(ends), strict=True)]

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

    def add(self, rows: list[Row]) -> None:
        self.requests += len(rows)
        self.retries += sum([row.retries for row in rows])
        self.cost_nanos += sum([row.cost_nanos for row in rows])
        self.input_tokens += sum([row.input_tokens for row in rows])
        self.cached_tokens += sum([row.cached_tokens for row in rows])
        self.output_tokens += sum([row.output_tokens for row in rows])
        self.wasted_tokens += sum([row.wasted_tokens for row in rows])
        self.ttft.add([row.ttft_ms for row in rows])
        self.tpot.add([row.tpot_ms for row in rows])
        self.e2e.add([row.e2e_ms for row in rows])
        self.queue.add([row.queue_ms for row in rows])


class Telemetry:
    """One series per endpoint, status and outcome."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, int, str], Series] = defaultdict(Series)
        self._fresh: list[Row] = []

    def add(self, rows: list[Row]) -> None:
        self._fresh += rows
        if len(self._fresh) >= TOGETHER:
            self._fold()

    def series(self) -> dict[tuple[str, int, str], Series]:
        """By endpoint, status and outcome."""
        self._fold()
        return self._series

    def _fold(self) -> None:
        rows, self._fresh = self._fresh, []
        groups: dict[tuple[str, int, str], list[Row]] = defaultdict(list)
        for row in rows:
            groups[row.endpoint, row.status, row.outcome].append(row)
        for labels, group in groups.items():
            self._series[labels].add(group)
