"""How much load one replica of a configuration carries while it keeps the service levels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.memory import MemoryBudget
from foundry_sim.facts.parallel import replicas_that_fit
from foundry_sim.facts.weights import Layout
from foundry_sim.search.candidates import Block, Candidates, Floats, blocks, fitting, predicted_rows, replica_counts
from foundry_sim.search.judge import Judged, judge
from foundry_sim.search.plans import SimulationRequest, Workload

_SHARES = 32
_SCALE = 16
_CHUNKS = (2048, 8192, 16384)
_RATES, _ROUNDS = 10, 3  # tried at once, and how often in narrowing steps: they come within 3 % of the largest rate
_LEAST = 1e-9  # of the arriving rate


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """A configuration with what one replica of it carries (users or requests/s), costs and takes to answer."""

    block: Block
    layout: Layout
    capacity: float
    most_replicas: int
    cost_nanos_per_hour: int
    e2e_ms: float


def options(request: SimulationRequest, architecture: Architecture) -> dict[str, list[Option]]:
    """Per device group, the configurations that carry anything within the service levels, engine settings varied."""
    found: dict[str, list[Option]] = {group.name: [] for group in request.device_groups}
    for block in _tuned(request, architecture):
        found[block.group.name].extend(_carrying(request, architecture, block))
    return found


def _tuned(request: SimulationRequest, architecture: Architecture) -> Iterator[Block]:
    for block in blocks(request, architecture):
        for chunk in _chunks(request, architecture):
            yield replace(block, limits=replace(block.limits, chunk_tokens=chunk))


def _chunks(request: SimulationRequest, architecture: Architecture) -> tuple[int, ...]:
    """A prompt that fits in one chunk gains nothing from a larger one, which takes memory from the cache."""
    if architecture.task != "generate":
        return _CHUNKS
    smaller = sum(chunk < request.workload.input_tokens for chunk in _CHUNKS)
    return _CHUNKS[: smaller + 1]


def _carrying(request: SimulationRequest, architecture: Architecture, block: Block) -> list[Option]:
    """The largest load of each layout at which every limit holds."""
    kept, budgets = fitting(request, architecture, block)
    if not kept:
        return []
    steps = loads(request.workload)
    load = np.tile(np.array(steps), (len(kept), 1))
    judged = _judged(request, architecture, block, kept, budgets, load)
    most = np.where(judged.feasible.reshape(load.shape), load, 0.0)
    return [
        _option(block, layout, steps[step], float(judged.e2e_ms[place * len(steps) + step]))
        for place, (layout, step) in enumerate(zip(kept, most.argmax(axis=1).tolist(), strict=True))
        if most[place, step] > 0
    ]


def _judged(
    request: SimulationRequest,
    architecture: Architecture,
    block: Block,
    kept: list[Layout],
    budgets: list[MemoryBudget],
    load: Floats,
) -> Judged:
    """One replica of each layout under each of its loads; `load` has shape (layouts, loads), the rows are flat."""
    index, flat = np.repeat(np.arange(len(kept)), load.shape[1]), load.ravel()
    predicted = predicted_rows(request, architecture, block, kept, budgets, index, flat)
    one = np.ones(len(flat), np.int64)
    return judge(request, Candidates(block, tuple(kept), tuple(budgets), index, one, flat, predicted))


def _option(block: Block, layout: Layout, load: float, e2e_ms: float) -> Option:
    most = replicas_that_fit(block.span, layout.devices, layout.tp)
    return Option(block, layout, load, most, layout.devices * block.price_nanos_per_hour, e2e_ms)


def loads(workload: Workload) -> list[float]:
    """Loads of one replica to try, rising: equal shares among up to _SHARES replicas, and a geometric scale."""
    total = total_load(workload)
    equal = total / np.arange(1, _SHARES + 1)
    scale = np.geomspace(min(1.0, 0.01 * total), total, _SCALE)
    if workload.concurrency:
        equal, scale = np.ceil(equal), np.maximum(1.0, scale.round())
    return [float(step) for step in np.unique(np.concatenate([equal, scale]))]


def total_load(workload: Workload) -> float:
    return float(workload.concurrency or workload.rate_per_s or 0.0)


def carried_rate(request: SimulationRequest, architecture: Architecture) -> float:
    """The largest rate, requests/s, at which some configuration keeps every limit, found within 3 %; 0 when even a
    billionth of the arriving rate is too much."""
    arriving, best = total_load(request.workload), 0.0
    left, rates = list(blocks(request, architecture)), np.geomspace(_LEAST * arriving, arriving, _RATES)
    for _ in range(_ROUNDS):
        carried = [_largest(request, architecture, block, rates) for block in left]
        best = max(carried, default=0.0)
        if not best:
            break
        left = [block for block, rate in zip(left, carried, strict=True) if rate == best]
        rates = np.geomspace(best, best * rates[1] / rates[0], _RATES)
    return best


def _largest(request: SimulationRequest, architecture: Architecture, block: Block, rates: Floats) -> float:
    """The largest of these rates that one of the block's layouts carries with as many replicas as there may be."""
    kept, budgets = fitting(request, architecture, block)
    most = np.array([max(replica_counts(request, block, layout), default=0) for layout in kept], float)
    if not most.any():
        return 0.0
    load = rates / np.maximum(most, 1.0)[:, None]
    feasible = _judged(request, architecture, block, kept, budgets, load).feasible.reshape(load.shape)
    return float(np.where(feasible & (most[:, None] > 0), rates, 0.0).max())
