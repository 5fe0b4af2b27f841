"""Counters of one gateway process in Prometheus' text format."""

from bisect import bisect_left
from typing import TYPE_CHECKING

from gateway.core.shapes import Row

if TYPE_CHECKING:
    from gateway.runtime import Gateway

LATENCY_BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000)


class Histogram:
    """Counts per upper bound in milliseconds."""

    __slots__ = ("buckets", "sum_ms")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        self.sum_ms = 0.0

    def lines(self, name: str, labels: str) -> list[str]:
        lines, total = [], 0
        for bound, count in zip((*LATENCY_BOUNDS_MS, "+Inf"), self.buckets, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
        return [*lines, f"{name}_sum{{{labels}}} {self.sum_ms:.3f}", f"{name}_count{{{labels}}} {total}"]


class Series:
    """Sums over the rows of one endpoint, status and outcome."""

    __slots__ = ("e2e", "input_tokens", "output_tokens", "requests", "ttft", "wasted_tokens")

    def __init__(self) -> None:
        self.requests = self.input_tokens = self.output_tokens = self.wasted_tokens = 0
        self.ttft, self.e2e = Histogram(), Histogram()


class Telemetry:
    """Sums over metering rows: what Prometheus scrapes is the same that is billed."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, int, str], Series] = {}

    def add(self, row: Row) -> None:
        series = self.series.get((row.endpoint, row.status, row.outcome))
        if series is None:
            series = self.series[row.endpoint, row.status, row.outcome] = Series()
        series.requests += 1
        series.input_tokens += row.input_tokens
        series.output_tokens += row.output_tokens
        series.wasted_tokens += row.wasted_tokens
        for histogram, value_ms in ((series.e2e, row.e2e_ms), (series.ttft, row.ttft_ms)):
            if value_ms is not None:
                histogram.sum_ms += value_ms
                histogram.buckets[bisect_left(LATENCY_BOUNDS_MS, value_ms)] += 1


def exposition(gateway: "Gateway") -> str:
    """All metrics of this process."""
    every = [
        (f'endpoint="{_escape(endpoint)}",status="{status}",outcome="{outcome}"', series)
        for (endpoint, status, outcome), series in gateway.telemetry.series.items()
    ]
    lines = ["# TYPE foundry_gateway_requests_total counter"]
    lines += [f"foundry_gateway_requests_total{{{labels}}} {series.requests}" for labels, series in every]
    lines.append("# TYPE foundry_gateway_tokens_total counter")
    for labels, series in every:
        for kind in ("input", "output", "wasted"):
            value = getattr(series, f"{kind}_tokens")
            lines.append(f'foundry_gateway_tokens_total{{{labels},kind="{kind}"}} {value}')
    for name in ("ttft", "e2e"):
        lines.append(f"# TYPE foundry_gateway_{name}_ms histogram")
        for labels, series in every:
            lines += getattr(series, name).lines(f"foundry_gateway_{name}_ms", labels)
    return "\n".join([*lines, *_gauges(gateway)]) + "\n"


def _gauges(gateway: "Gateway") -> list[str]:
    snapshot = gateway.policy.snapshot
    lines = []
    for name, value in (
        ("config_version", snapshot.version if snapshot else 0),
        ("config_refused_total", gateway.config_errors),
        ("metering_rows_total", gateway.meter.rows),
        ("metering_uploaded_rows_total", gateway.meter.uploaded),
        ("metering_batches_waiting", len(gateway.meter.waiting)),
        ("control_plane_away", int(gateway.policy.book.away)),
    ):
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# TYPE foundry_gateway_{name} {kind}", f"foundry_gateway_{name} {value}"]
    lines.append("# TYPE foundry_gateway_outstanding gauge")
    for deployment in snapshot.deployments.values() if snapshot else ():
        label = _escape(deployment.id)
        lines.append(f'foundry_gateway_outstanding{{deployment="{label}"}} {deployment.outstanding}')
    return lines


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
