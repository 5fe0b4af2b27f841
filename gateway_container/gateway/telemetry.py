"""Counters of one gateway process in Prometheus' text format."""

from collections import Counter
from typing import TYPE_CHECKING

from gateway.core.meter import Row

if TYPE_CHECKING:
    from gateway.runtime import Gateway

LATENCY_BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000)


class Histogram:
    """Counts per upper bound in milliseconds."""

    __slots__ = ("buckets", "count", "sum_ms")

    def __init__(self) -> None:
        self.buckets = [0] * len(LATENCY_BOUNDS_MS)
        self.count = 0
        self.sum_ms = 0.0

    def add(self, value_ms: float) -> None:
        self.count += 1
        self.sum_ms += value_ms
        for position, bound in enumerate(LATENCY_BOUNDS_MS):
            if value_ms <= bound:
                self.buckets[position] += 1
                return

    def lines(self, name: str, labels: str) -> list[str]:
        lines, total = [], 0
        for bound, count in zip(LATENCY_BOUNDS_MS, self.buckets, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
        lines.append(f'{name}_bucket{{{labels},le="+Inf"}} {self.count}')
        return [*lines, f"{name}_sum{{{labels}}} {self.sum_ms:.3f}", f"{name}_count{{{labels}}} {self.count}"]


class Telemetry:
    """Sums over metering rows: what Prometheus scrapes is the same that is billed."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int, str]] = Counter()
        self.tokens: Counter[tuple[str, str]] = Counter()
        self.ttft: dict[str, Histogram] = {}
        self.e2e: dict[str, Histogram] = {}

    def add(self, row: Row) -> None:
        endpoint = row.endpoint
        self.requests[endpoint, row.status, row.outcome] += 1
        if row.output_tokens or row.input_tokens:
            self.tokens[endpoint, "input"] += row.input_tokens
            self.tokens[endpoint, "output"] += row.output_tokens
            self.tokens[endpoint, "wasted"] += row.wasted_tokens
        if endpoint not in self.e2e:
            self.e2e[endpoint], self.ttft[endpoint] = Histogram(), Histogram()
        self.e2e[endpoint].add(row.e2e_ms)
        if row.ttft_ms is not None:
            self.ttft[endpoint].add(row.ttft_ms)


def exposition(gateway: "Gateway") -> str:
    """All metrics of this process."""
    telemetry = gateway.telemetry
    lines = ["# TYPE foundry_gateway_requests_total counter"]
    for (endpoint, status, outcome), count in telemetry.requests.items():
        labels = f'endpoint="{_escape(endpoint)}",status="{status}",outcome="{outcome}"'
        lines.append(f"foundry_gateway_requests_total{{{labels}}} {count}")
    lines.append("# TYPE foundry_gateway_tokens_total counter")
    for (endpoint, kind), count in telemetry.tokens.items():
        lines.append(f'foundry_gateway_tokens_total{{endpoint="{_escape(endpoint)}",kind="{kind}"}} {count}')
    for name, histograms in (("ttft", telemetry.ttft), ("e2e", telemetry.e2e)):
        lines.append(f"# TYPE foundry_gateway_{name}_ms histogram")
        for endpoint, histogram in histograms.items():
            lines += histogram.lines(f"foundry_gateway_{name}_ms", f'endpoint="{_escape(endpoint)}"')
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
