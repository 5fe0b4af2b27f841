"""All metrics of one gateway process in Prometheus' text format."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from gateway.core.health import failure_rate
from gateway.core.lease import NO_LEASE

if TYPE_CHECKING:
    from gateway.runtime import Gateway

PREFIX = "foundry_gateway_"
Sample = tuple[str, str, float]  # suffix of the name, labels, value
Family = tuple[str, str, Iterable[Sample]]  # name, type, samples


def exposition(gateway: "Gateway") -> str:
    """What ``GET /metrics`` answers."""
    lines = []
    for families in (_requests(gateway), _process(gateway), _leases(gateway), _deployments(gateway), _extras(gateway)):
        for name, kind, samples in families:
            lines.append(f"# TYPE {PREFIX}{name} {kind}")
            lines += [
                f"{PREFIX}{name}{suffix}{{{labels}}} {value}" if labels else f"{PREFIX}{name}{suffix} {value}"
                for suffix, labels, value in samples
            ]
    return "\n".join(lines) + "\n"


def _requests(gateway: "Gateway") -> Iterator[Family]:
    every = [
        (f'endpoint="{_escape(endpoint)}",status="{status}",outcome="{outcome}"', series)
        for (endpoint, status, outcome), series in gateway.observability.telemetry.series.items()
    ]
    yield "requests_total", "counter", [("", labels, series.requests) for labels, series in every]
    yield "retries_total", "counter", [("", labels, series.retries) for labels, series in every]
    yield "cost_nanos_total", "counter", [("", labels, series.cost_nanos) for labels, series in every]
    kinds = ("input", "cached", "output", "wasted")
    yield (
        "tokens_total",
        "counter",
        [
            ("", f'{labels},kind="{kind}"', getattr(series, f"{kind}_tokens"))
            for labels, series in every
            for kind in kinds
        ],
    )
    for name in ("ttft", "tpot", "e2e", "queue"):
        samples = [sample for labels, series in every for sample in getattr(series, name).samples(labels)]
        yield f"{name}_ms", "histogram", samples


def _process(gateway: "Gateway") -> Iterator[Family]:
    snapshot, observability = gateway.policy.snapshot, gateway.observability
    for name, value in (
        ("config_version", snapshot.version if snapshot else 0),
        ("config_age_seconds", round(time.monotonic() - gateway.config_heard_s, 3)),
        ("config_refused_total", gateway.config_errors),
        ("metering_rows_total", gateway.meter.rows),
        ("metering_uploaded_rows_total", gateway.meter.uploaded),
        ("metering_refused_rows_total", gateway.meter.refused),
        ("metering_dropped_rows_total", gateway.meter.dropped),
        ("metering_batches_waiting", len(gateway.meter.waiting)),
        ("control_plane_away", int(gateway.policy.book.away)),
        ("requests_held", gateway.requests_held),
        ("batches_running", len(gateway.batches.runs)),
        ("open_connections", gateway.open_connections()),
        ("loop_lag_seconds", round(observability.loop_lag_s, 6)),
        ("draining", int(gateway.draining)),
        *observability.counters(),
    ):
        yield name, "counter" if name.endswith("_total") else "gauge", [("", "", value)]


def _leases(gateway: "Gateway") -> Iterator[Family]:
    """By kind, not by scope: there may be ten thousand keys."""
    book, now_ms = gateway.policy.book, time.time_ns() // 1_000_000
    sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for scope in book.scopes.values():
        sums["leases_open"][scope.kind] += scope.lease is not NO_LEASE
        sums["leases_short"][scope.kind] += scope.retry_at_ms > now_ms
        if scope.lease is not NO_LEASE:
            sums["leases_free"][scope.kind] += scope.lease.free
            sums["leases_held"][scope.kind] += scope.lease.held
    for scope, _ in book.retired.values():
        sums["leases_ending"][scope.kind] += 1
    for name in ("leases_open", "leases_short", "leases_free", "leases_held", "leases_ending"):
        yield name, "gauge", [("", f'kind="{kind}"', value) for kind, value in sums[name].items()]


def _deployments(gateway: "Gateway") -> Iterator[Family]:
    snapshot, now_s = gateway.policy.snapshot, time.monotonic()
    every = [(f'deployment="{_escape(d.id)}"', d) for d in snapshot.deployments.values()] if snapshot else []
    yield "outstanding", "gauge", [("", label, d.outstanding) for label, d in every]
    yield "breaker_open", "gauge", [("", label, int(d.open_until_s > now_s)) for label, d in every]
    yield "ejected", "gauge", [("", label, int(d.ejected_until_s > now_s)) for label, d in every]
    yield "failure_rate", "gauge", [("", label, round(failure_rate(d), 4)) for label, d in every]
    yield "first_byte_seconds", "gauge", [("", label, round(d.latency_s, 6)) for label, d in every]


def _extras(gateway: "Gateway") -> Iterator[Family]:
    names = ("endpoint", "guardrail", "action", "on")
    samples = [
        ("", ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, found, strict=True)), times)
        for found, times in gateway.extras.findings.items()
    ]
    yield "guardrail_findings_total", "counter", samples
    yield "captures_dropped_total", "counter", [("", "", gateway.extras.captures.dropped)]
    yield "shadow_copies_skipped_total", "counter", [("", "", gateway.extras.shadows.skipped)]
    cache = gateway.extras.cache
    yield "cache_hits_total", "counter", [("", "", cache.hits)]
    yield "cache_misses_total", "counter", [("", "", cache.misses)]
    yield "cache_bytes", "gauge", [("", "", cache.bytes)]


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
