"""Predicted against measured: pure arithmetic."""

from collections.abc import Iterator

from functions.metrics.schemas import (
    Comparison,
    DeploymentVerified,
    Distribution,
    Interval,
    Measured,
    PlanFacts,
    SourceAccuracy,
    Spread,
)

_NOTES = {
    "twin": "The twin engine replays the simulator's own timing: this shows that the loop works, not that the "
    "simulator is right.",
    "verification": "One request to an idle engine: it has no queue and no batch to share.",
}
_HOUR_MS = 3_600_000


def against(plan: PlanFacts, measured: Measured) -> SourceAccuracy:
    comparisons = [
        *_latency("ttft_ms", plan.predicted.ttft_ms, measured.ttft_ms),
        *_latency("tpot_ms", plan.predicted.tpot_ms, measured.tpot_ms),
        *_throughput(plan, measured),
    ]
    return SourceAccuracy(
        source=measured.source, samples=measured.samples, from_ms=measured.from_ms, to_ms=measured.to_ms,
        concurrency=measured.in_flight_ms / measured.busy_ms if measured.busy_ms else None,
        note=_NOTES.get(measured.source), comparisons=comparisons,
    )  # fmt: skip


def verification(event: DeploymentVerified) -> Measured:
    """A single request as a measurement."""
    return Measured(
        source="verification", samples=1, ttft_ms=_single(event.ttft_ms), tpot_ms=_single(event.tpot_ms),
        output_tokens=event.output_tokens, busy_ms=event.e2e_ms or 0.0, in_flight_ms=event.e2e_ms or 0.0,
    )  # fmt: skip


def _single(value: float | None) -> Distribution | None:
    return None if value is None else Distribution(samples=1, mean=value, p50=value, p95=value, p99=value)


def _latency(metric: str, predicted: Spread, measured: Distribution | None) -> Iterator[Comparison]:
    interval = Interval(lo=predicted.lo, hi=predicted.hi)
    for statistic in ("mean", "p50", "p95", "p99"):
        value = getattr(measured, statistic) if measured else None
        bounds = interval if statistic == "mean" else None
        samples = measured.samples if measured else 0
        yield _comparison(metric, statistic, getattr(predicted, statistic), value, bounds, samples)


def _throughput(plan: PlanFacts, measured: Measured) -> Iterator[Comparison]:
    """Output tokens per second while any request was in flight, and what an hour of the hardware costs at that rate."""
    per_s = measured.output_tokens / measured.busy_ms * 1000 if measured.busy_ms and measured.output_tokens else None
    yield _comparison("output_tokens_per_s", "mean", plan.predicted.output_tokens_per_s, per_s, None, measured.samples)
    if plan.cost_nanos_per_million_output_tokens is not None:
        cost = plan.cost_nanos_per_hour / _HOUR_MS * 1000 * 1e6 / per_s if per_s else None
        predicted = float(plan.cost_nanos_per_million_output_tokens)
        yield _comparison("cost_nanos_per_million_output_tokens", "mean", predicted, cost, None, measured.samples)


def _comparison(
    metric: str, statistic: str, predicted: float, measured: float | None, interval: Interval | None, samples: int
) -> Comparison:
    error = (predicted - measured) / measured * 100 if measured else None
    within = interval.lo <= measured <= interval.hi if interval and measured is not None else None
    return Comparison.model_validate({
        "metric": metric, "statistic": statistic, "predicted": predicted, "interval": interval, "measured": measured,
        "error_percent": error, "within_interval": within, "samples": samples,
    })  # fmt: skip
