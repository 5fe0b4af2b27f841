"""Fleets: several device groups behind one endpoint, each with its own configuration and number of replicas.

The space (configuration × replicas per group, engine settings included) is enumerated where it fits and searched with
NSGA-II beyond. Capacities are those within the service levels, so any mixture that carries the load keeps them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundry_sim.facts.architecture import Architecture
from foundry_sim.search.assemble import plan
from foundry_sim.search.candidates import candidates
from foundry_sim.search.capacity import Option, options, total_load
from foundry_sim.search.genetic import Genomes, Problem, Scores, enumerate_all, evolve
from foundry_sim.search.judge import judge
from foundry_sim.search.plans import Fleet, FleetPart, SimulationRequest

EXACT_MAX = 200_000
_PER_GROUP = 12
_REPLICAS_MAX = 64
_FLEETS = 5
_NEARLY = 1.0 - 1e-9  # sums of shares are not exact


@dataclass(frozen=True, slots=True)
class Slot:
    """One device group in a genome: two genes, which option (0: none) and how many replicas (0: one)."""

    options: tuple[Option, ...]
    replicas: int


def fleets(request: SimulationRequest, architecture: Architecture) -> list[Fleet]:
    """The cheapest fleets that carry the load within the service levels; empty when none does."""
    slots = [slot for found in options(request, architecture).values() if (slot := _slot(request, found)) is not None]
    if sum(_most(slot) for slot in slots) < _NEARLY * total_load(request.workload):
        return []
    problem = fleet_problem(slots, total_load(request.workload))
    exact = math.prod(problem.sizes) <= EXACT_MAX
    answer = enumerate_all(problem) if exact else evolve(problem, seed=request.seed)
    if not answer.feasible:
        return []
    order = np.argsort(answer.scores.objectives[:, 0], kind="stable")[:_FLEETS]
    made = (_fleet(request, architecture, slots, genome) for genome in answer.genomes[order])
    return [fleet for fleet in made if fleet is not None]


def _slot(request: SimulationRequest, found: Sequence[Option]) -> Slot | None:
    """A group's options worth mixing: the best by capacity per cost, one per number of devices first."""
    ranked = sorted(found, key=lambda option: option.cost_nanos_per_hour / option.capacity)
    by_size = list({option.layout.devices: option for option in reversed(ranked)}.values())
    kept = list(dict.fromkeys([*sorted(by_size, key=lambda option: option.layout.devices), *ranked]))[:_PER_GROUP]
    if not kept:
        return None
    needed = math.ceil(total_load(request.workload) / min(option.capacity for option in kept))
    most = max(option.most_replicas for option in kept)
    return Slot(tuple(kept), max(1, min(most, needed, _REPLICAS_MAX)))


def _most(slot: Slot) -> float:
    """The largest load that any choice of this group carries."""
    return max(option.capacity * min(slot.replicas, option.most_replicas) for option in slot.options)


def fleet_problem(slots: Sequence[Slot], load: float) -> Problem:
    """Minimise cost and the users' mean time to answer; the violation is the share of the load left uncarried."""
    sizes = tuple(size for slot in slots for size in (len(slot.options) + 1, slot.replicas))
    tables = [_table(slot) for slot in slots]

    def evaluate(genomes: Genomes) -> Scores:
        cost, carried, weighted = (np.zeros(len(genomes)) for _ in range(3))
        for place, (capacity, most, price, delay) in enumerate(tables):
            chosen = genomes[:, 2 * place]
            replicas = np.minimum(genomes[:, 2 * place + 1] + 1, most[chosen])
            part = capacity[chosen] * replicas
            carried += part
            cost += price[chosen] * replicas
            weighted += part * delay[chosen]
        mean_delay = weighted / np.maximum(carried, 1e-9)
        return Scores(np.stack([cost, mean_delay], axis=1), np.maximum(0.0, 1.0 - carried / load))

    return Problem(sizes, evaluate)


def _table(slot: Slot) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Columns over a slot's options, nothing first: capacity, most replicas, cost, time to answer."""
    return (
        np.array([0.0, *(option.capacity for option in slot.options)]),
        np.array([0, *(option.most_replicas for option in slot.options)]),
        np.array([0.0, *(float(option.cost_nanos_per_hour) for option in slot.options)]),
        np.array([0.0, *(option.e2e_ms for option in slot.options)]),
    )


def _fleet(
    request: SimulationRequest, architecture: Architecture, slots: Sequence[Slot], genome: np.ndarray
) -> Fleet | None:
    """Spread the load by capacity and predict each part at its share; None should rounding break a limit."""
    chosen = [
        (slot.options[int(genome[2 * place]) - 1], int(genome[2 * place + 1]) + 1)
        for place, slot in enumerate(slots)
        if genome[2 * place] > 0
    ]
    chosen = [(option, min(replicas, option.most_replicas)) for option, replicas in chosen]
    shares = _shares(request, chosen)
    parts = [_part(request, architecture, *pair, load) for pair, load in zip(chosen, shares, strict=True) if load > 0]
    if any(part is None or not part.plan.meets_service_levels for part in parts):
        return None
    made = [part for part in parts if part is not None]
    return Fleet(
        parts=made,
        devices=sum(part.plan.devices for part in made),
        cost_nanos_per_hour=sum(part.plan.cost_nanos_per_hour for part in made),
        output_tokens_per_s=sum(part.plan.predicted.output_tokens_per_s for part in made),
    )


def _shares(request: SimulationRequest, chosen: Sequence[tuple[Option, int]]) -> list[float]:
    """Load of each part in proportion to its capacity; whole users in a closed loop, none beyond capacity."""
    load = total_load(request.workload)
    capacity = [option.capacity * replicas for option, replicas in chosen]
    exact = [load * part / sum(capacity) for part in capacity]
    if not request.workload.concurrency:
        return exact
    shares = [float(math.floor(part)) for part in exact]
    for place in sorted(range(len(shares)), key=lambda index: shares[index] - exact[index]):
        if sum(shares) >= load:
            break
        shares[place] += 1.0
    return shares


def _part(
    request: SimulationRequest, architecture: Architecture, option: Option, replicas: int, load: float
) -> FleetPart | None:
    work = request.workload
    update = {"concurrency": max(1, round(load))} if work.concurrency else {"rate_per_s": load}
    own = request.model_copy(
        update={"workload": work.model_copy(update=update), "replicas": replicas, "mode": "dedicated"}
    )
    rows = candidates(own, architecture, option.block, option.layout)
    if rows is None:
        return None
    return FleetPart(plan=plan(own, architecture, rows, judge(own, rows), 0), load=load)
