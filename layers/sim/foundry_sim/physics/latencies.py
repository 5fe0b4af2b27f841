"""What clients of the event scheduler see: latencies of each request, their percentiles, throughput, goodput."""

from dataclasses import dataclass

import numpy as np

from foundry_sim.physics.scheduler import Limits, Scheduler, Workload
from foundry_sim.physics.step import StepModel
from foundry_sim.physics.step_table import StepTable
from foundry_sim.physics.terms import Array


@dataclass(frozen=True, slots=True)
class Summary:
    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Result:
    """Latencies in ms over completed requests; goodput counts only requests within both service levels."""

    ttft_ms: Summary
    itl_ms: Summary
    tpot_ms: Summary
    e2e_ms: Summary
    output_tokens_per_s: float
    requests_per_s: float
    goodput_requests_per_s: float
    preemptions: int
    completed: int


@dataclass(frozen=True, slots=True)
class Served:
    """Completed requests, one entry each (ms, tokens, s), and the gaps between tokens (ms, how many of each)."""

    ttft_ms: Array
    tpot_ms: Array
    output_tokens: Array
    done_s: Array
    gap_ms: Array
    gap_tokens: Array
    preemptions: int

    @property
    def e2e_ms(self) -> Array:
        return self.ttft_ms + np.maximum(self.output_tokens - 1, 0) * self.tpot_ms

    @property
    def itl_ms(self) -> Summary:
        return _weighted(self.gap_ms, self.gap_tokens)


def serve(model: StepModel, limits: Limits, workload: Workload, scale: float = 1.0) -> Served:
    """Serve the workload; `scale` multiplies every step time (a correction of the closed form)."""
    scheduler = Scheduler(StepTable(model, scale), limits, workload)
    done = [r for r in scheduler.run() if r.done_s >= 0]
    gaps = np.array(scheduler.state.gaps or [(0.0, 1)])
    return Served(
        ttft_ms=np.array([r.first_s - r.arrived_s for r in done]) * 1e3,
        tpot_ms=np.array([(r.done_s - r.first_s) / max(r.output - 1, 1) for r in done]) * 1e3,
        output_tokens=np.array([r.output for r in done]),
        done_s=np.array([r.done_s for r in done]),
        gap_ms=gaps[:, 0] * 1e3,
        gap_tokens=gaps[:, 1],
        preemptions=scheduler.state.preemptions,
    )


def simulate(
    model: StepModel,
    limits: Limits,
    workload: Workload,
    *,
    scale: float = 1.0,
    ttft_ms: float = float("inf"),
    tpot_ms: float = float("inf"),
) -> Result:
    """As `serve`, summed up."""
    found = serve(model, limits, workload, scale)
    span = float(found.done_s.max(initial=0.0)) or 1.0
    return Result(
        _summary(found.ttft_ms),
        found.itl_ms,
        _summary(found.tpot_ms),
        _summary(found.e2e_ms),
        output_tokens_per_s=float(found.output_tokens.sum()) / span,
        requests_per_s=len(found.done_s) / span,
        goodput_requests_per_s=int(np.sum((found.ttft_ms <= ttft_ms) & (found.tpot_ms <= tpot_ms))) / span,
        preemptions=found.preemptions,
        completed=len(found.done_s),
    )


def _summary(values: Array) -> Summary:
    if not len(values):
        return Summary(*(float("nan"),) * 4)
    p50, p95, p99 = np.quantile(values, (0.5, 0.95, 0.99))
    return Summary(float(values.mean()), float(p50), float(p95), float(p99))


def _weighted(values: Array, weights: Array) -> Summary:
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    found = [float(values[order][min(int(np.searchsorted(reached, q)), len(values) - 1)]) for q in (0.5, 0.95, 0.99)]
    return Summary(float(np.average(values, weights=weights)), *found)
