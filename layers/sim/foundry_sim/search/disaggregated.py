"""Prefill and decode on separate instances of one device group: decoding is never interrupted, prompts are never queued
behind it, and each prompt's cache crosses the network once.

Closed form, tails included (no measurement corrects it): a prefill instance serves prompts one after the other (M/D/1),
decoders share the users evenly, and the steady state follows from Little's law. Hence the wide interval and
``in_domain`` False.
Source of the shape: Splitwise (arXiv:2311.18677) and DistServe (arXiv:2401.09670).
"""

from dataclasses import dataclass, replace

import numpy as np

from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.memory import MemoryBudget, kv_bytes_per_token
from foundry_sim.facts.parallel import replicas_that_fit
from foundry_sim.facts.weights import Layout
from foundry_sim.outcome import Outcome, Spreads, each_token, first_token, shape_of, whole_request
from foundry_sim.predict import ArrayPrediction
from foundry_sim.search.assemble import plan
from foundry_sim.search.candidates import Block, Candidates, Floats, blocks, cache_tokens, fitting, step_model
from foundry_sim.search.genetic import Genomes
from foundry_sim.search.judge import bound, excess, judge, tpot_limit
from foundry_sim.search.plans import Fleet, FleetPart, SimulationRequest

ENGINES = ("vllm", "sglang")  # servers that hand a cache over
_INTERVAL = 1.6  # the mean lies within this factor
_BUSY_MAX = 0.85  # of a prefill instance: beyond it the queue decides, not the prompt
_BATCHES = np.unique(np.geomspace(1, 1024, 40).round())
_ROUNDS = 120
_LAYOUTS = 8
_REPLICAS = 16


@dataclass(frozen=True, slots=True)
class Stagewise:
    """Tables of one block, by layout: prompt time, token time over ``_BATCHES``, cache room, most replicas."""

    block: Block
    layouts: tuple[Layout, ...]
    budgets: tuple[MemoryBudget, ...]
    prompt_s: Floats
    token_s: Floats
    room: Floats
    most: Floats
    devices: Floats
    transfer_s: float


@dataclass(frozen=True, slots=True)
class State:
    """The steady state of each genome; ``excess`` sums what breaks a limit."""

    ttft_s: Floats
    token_s: Floats
    e2e_s: Floats
    rate: Floats
    devices: Floats
    excess: Floats


def disaggregated(request: SimulationRequest, architecture: Architecture) -> list[Fleet]:
    """The cheapest split deployment of each group and engine that meets the service levels."""
    if architecture.task != "generate" or request.workload.output_tokens < 2 or request.mode == "shared":
        return []
    found = []
    for block in blocks(request, architecture):
        if block.engine in ENGINES and block.group.devices >= 2:
            fleet = _best(request, architecture, block)
            found += [fleet] if fleet else []
    return sorted(found, key=lambda fleet: fleet.cost_nanos_per_hour)


def _best(request: SimulationRequest, architecture: Architecture, block: Block) -> Fleet | None:
    tables = stagewise(request, architecture, block)
    if tables is None:
        return None
    genomes = _within(tables)
    state = steady(request, tables, genomes)
    feasible = np.flatnonzero(state.excess <= 0.0)
    if not len(feasible):
        return None
    cheapest = np.lexsort((state.e2e_s[feasible], state.devices[feasible]))[0]
    return _fleet(request, architecture, tables, genomes[feasible[cheapest]])


def _within(tables: Stagewise) -> Genomes:
    """Every genome that the group has devices for."""
    count, most = len(tables.layouts), int(min(_REPLICAS, tables.most.max()))
    prompts, servers, tokens, sinks = np.indices((count, most, count, most)).reshape(4, -1)
    devices = tables.devices[prompts] * (servers + 1) + tables.devices[tokens] * (sinks + 1)
    placed = (servers < tables.most[prompts]) & (sinks < tables.most[tokens])
    keep = placed & (devices <= float(tables.block.group.devices))
    return np.stack([prompts, servers, tokens, sinks], axis=1)[keep]


def stagewise(request: SimulationRequest, architecture: Architecture, block: Block) -> Stagewise | None:
    """The block's tables over its smallest layouts without attention copies; None when nothing fits."""
    kept, budgets = fitting(request, architecture, block)
    pairs = [(layout, found) for layout, found in zip(kept, budgets, strict=True) if layout.dp == 1][:_LAYOUTS]
    if not pairs:
        return None
    work = request.workload
    models = [step_model(architecture, block, layout) for layout, _ in pairs]
    context = work.input_tokens + work.output_tokens / 2
    cached = kv_bytes_per_token(architecture, block.variant.precision.kv) * work.input_tokens
    return Stagewise(
        block,
        tuple(layout for layout, _ in pairs),
        tuple(found for _, found in pairs),
        np.array([float(model.prefill_ms(work.input_tokens)) / 1e3 for model in models]),
        np.stack([model.decode_ms(_BATCHES, context) / 1e3 for model in models]),
        np.array([cache_tokens(found, layout) / (context + 1) for layout, found in pairs]),
        np.array([float(replicas_that_fit(block.span, layout.devices, layout.tp)) for layout, _ in pairs]),
        np.array([float(layout.devices) for layout, _ in pairs]),
        cached / block.device.network_bytes_per_s,
    )


def steady(request: SimulationRequest, tables: Stagewise, genomes: Genomes) -> State:
    """Genome: prefill layout, its replicas − 1, decode layout, its replicas − 1."""
    work, tail = request.workload, request.workload.output_tokens - 1
    prompts, prefillers, tokens, decoders = genomes.T
    servers, sinks = prefillers + 1.0, decoders + 1.0
    prompt_s, room = tables.prompt_s[prompts], tables.room[tokens]
    rate = np.full(len(genomes), work.rate_per_s or 1e-9)
    ttft, token = prompt_s + tables.transfer_s, tables.token_s[tokens, 0]
    for _ in range(_ROUNDS):
        batch = np.clip(rate * tail * token / sinks, 1.0, np.minimum(room, _BATCHES[-1]))
        token = 0.5 * token + 0.5 * _token_s(tables, tokens, batch)
        busy = rate * prompt_s / servers
        queue = np.minimum(busy, 0.98) / (2 * (1 - np.minimum(busy, 0.98))) * prompt_s
        ttft = prompt_s + queue + tables.transfer_s
        if work.concurrency:
            rate = 0.8 * rate + 0.2 * work.concurrency / (ttft + tail * token)
    e2e = ttft + tail * token
    devices = tables.devices[prompts] * servers + tables.devices[tokens] * sinks
    busy = np.maximum(0.0, rate * prompt_s / servers / _BUSY_MAX - 1.0)
    full = np.maximum(0.0, rate * tail * token / sinks / np.minimum(room, _BATCHES[-1]) - 1.0)
    return State(ttft, token, e2e, rate, devices, busy + full + _late(request, ttft, token))


def _token_s(tables: Stagewise, layouts: Genomes, batch: Floats) -> Floats:
    """Token time at any batch, between the tabulated ones."""
    inside = np.maximum(batch, _BATCHES[0])
    place = np.minimum(np.searchsorted(_BATCHES, inside, side="right"), len(_BATCHES) - 1) - 1
    below, above = tables.token_s[layouts, place], tables.token_s[layouts, place + 1]
    share = (inside - _BATCHES[place]) / (_BATCHES[place + 1] - _BATCHES[place])
    return np.asarray(below + share * (above - below))


def _late(request: SimulationRequest, ttft_s: Floats, token_s: Floats) -> Floats:
    """Log excess over the limits at the bound that the request asks for."""
    levels, upper = request.service_levels, request.confidence == "upper"
    total = np.zeros_like(ttft_s)
    spreads = _spreads(request, ttft_s, token_s)
    for spread, limit in zip(spreads, (levels.ttft_ms, tpot_limit(request), levels.e2e_ms), strict=True):
        if limit is not None:
            total += excess(bound(spread, levels.statistic, upper), limit)
    return total


def _fleet(request: SimulationRequest, architecture: Architecture, tables: Stagewise, genome: np.ndarray) -> Fleet:
    state = steady(request, tables, genome[None, :])
    load = float(request.workload.concurrency or request.workload.rate_per_s or 0.0)
    parts = [
        _part(request, architecture, tables, state, int(genome[0]), int(genome[1]) + 1, "prefill", load),
        _part(request, architecture, tables, state, int(genome[2]), int(genome[3]) + 1, "decode", load),
    ]
    return Fleet(
        parts=parts,
        devices=sum(part.plan.devices for part in parts),
        cost_nanos_per_hour=sum(part.plan.cost_nanos_per_hour for part in parts),
        output_tokens_per_s=float(state.rate[0]) * request.workload.output_tokens,
    )


def _part(
    request: SimulationRequest,
    architecture: Architecture,
    tables: Stagewise,
    state: State,
    place: int,
    replicas: int,
    role: str,
    load: float,
) -> FleetPart:
    """One side of the split; its plan shows the times of the whole path."""
    tokens = np.array([state.rate[0] * request.workload.output_tokens / replicas])
    outcome = Outcome(
        *_spreads(request, state.ttft_s, state.token_s),
        tokens, tokens / _INTERVAL, tokens * _INTERVAL, np.zeros(1, bool),
    )  # fmt: skip
    rows = Candidates(
        replace(tables.block, role=role),
        (tables.layouts[place],),
        (tables.budgets[place],),
        np.zeros(1, np.intp),
        np.array([replicas]),
        np.array([load]),
        ArrayPrediction(outcome, np.array([np.inf]), np.ones(1, bool)),
    )
    return FleetPart(plan=plan(request, architecture, rows, judge(request, rows), 0), load=load, role=role)


def _spreads(request: SimulationRequest, ttft_s: Floats, token_s: Floats) -> tuple[Spreads, Spreads, Spreads]:
    """First token, each token, whole request: the tails of a running engine without a start burst, and of decoding
    that no prefill interrupts."""
    width = np.log(_INTERVAL)
    first = first_token(ttft_s * 1e3, *shape_of(np.ones_like(ttft_s)), width)
    token = each_token(token_s * 1e3, 0.0, width)
    return first, token, whole_request(first, token, np.asarray(request.workload.output_tokens - 1.0))
