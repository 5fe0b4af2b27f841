"""Service levels against predictions: bounds, excess over each limit, cost; all in columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundry_sim.outcome import Spreads
from foundry_sim.search.candidates import Candidates, Floats
from foundry_sim.search.plans import SimulationRequest

_FULL = 0.95
# Of the interval's upper half: more breaks fewer service levels and gives away more throughput. `foundry sim validate`
# prints what each share costs on left-out configurations; this one breaks about one in twenty where all is recorded.
CAUTION = 0.53
CONSTRAINTS = ("ttft", "tokens_per_second", "e2e", "throughput")


@dataclass(frozen=True, slots=True)
class Judged:
    """Per row: each metric's bound (ms), its log excess over the limit (0 when met), devices and cost."""

    ttft_ms: Floats
    tpot_ms: Floats
    e2e_ms: Floats
    excess: Floats  # (rows, constraints)
    devices: NDArray[np.int64]
    cost_nanos_per_hour: NDArray[np.int64]
    output_tokens_per_s: Floats

    @property
    def violation(self) -> Floats:
        return np.asarray(self.excess.sum(axis=1))

    @property
    def feasible(self) -> NDArray[np.bool_]:
        return np.asarray(self.violation <= 0.0)


def bound(spread: Spreads, statistic: str, upper: bool) -> Floats:
    """The statistic itself, or its cautious bound."""
    value = np.asarray(getattr(spread, statistic), float)
    return cautious(value, spread.mean, spread.hi) if upper else value


def cautious(value: Floats, mean: Floats, hi: Floats, caution: float = CAUTION) -> Floats:
    """What is compared with a limit: the value raised by a share of the interval's upper half (in log space)."""
    return np.asarray(value * np.maximum(1.0, hi / np.maximum(mean, 1e-9)) ** caution)


def judge(request: SimulationRequest, rows: Candidates) -> Judged:
    """Bounds, excess and cost of every row."""
    levels, upper = request.service_levels, request.confidence == "upper"
    answer = rows.predicted.outcome
    ttft = bound(answer.ttft_ms, levels.statistic, upper)
    tpot = bound(answer.tpot_ms, levels.statistic, upper)
    e2e = bound(answer.e2e_ms, levels.statistic, upper)
    per_replica = np.array([layout.devices for layout in rows.layouts], np.int64)[rows.layout_index]
    devices = per_replica * rows.replicas
    busy = _occupancy(request, rows)
    total = np.asarray(answer.output_tokens_per_s) * rows.replicas
    if request.workload.rate_per_s is not None:
        arriving = rows.load * rows.replicas * max(1, request.workload.output_tokens)
        total = np.where(busy <= 1.0, arriving, np.minimum(total, arriving))
    return Judged(
        ttft,
        tpot,
        e2e,
        np.stack(
            [
                excess(ttft, levels.ttft_ms),
                excess(tpot, tpot_limit(request)),
                excess(e2e, levels.e2e_ms),
                np.log(np.maximum(busy, 1.0)),
            ],
            axis=1,
        ),
        devices,
        devices * rows.block.price_nanos_per_hour,
        total,
    )


def tpot_limit(request: SimulationRequest) -> float | None:
    """Milliseconds; None where no pace is asked for or there is none."""
    pace = request.service_levels.tokens_per_second
    return None if pace is None or request.workload.output_tokens <= 1 else 1000.0 / pace


def excess(values: Floats, limit: float | None) -> Floats:
    """log(value / limit) where above, so that twice too slow weighs the same for every metric."""
    if limit is None:
        return np.zeros_like(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.log(values / limit)
    return np.asarray(np.where(np.isfinite(found), np.maximum(found, 0.0), 50.0))


def _occupancy(request: SimulationRequest, rows: Candidates) -> Floats:
    """How full an open loop runs: requests in the system by Little's law over those that fit (5 % kept free). Above
    one the queue grows without end. A closed loop limits itself."""
    if request.workload.rate_per_s is None:
        return np.zeros_like(rows.load)
    inside = rows.load * np.asarray(rows.predicted.outcome.e2e_ms.mean) / 1e3
    return np.asarray(inside / (_FULL * np.maximum(rows.predicted.room, 1.0)))
