"""Every configuration × replicas worth looking at, predicted in columns."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foundry_sim.encode import encoded
from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.devices import Device, device
from foundry_sim.facts.memory import EngineLimits, MemoryBudget, budget
from foundry_sim.facts.parallel import Span, layouts, replicas_that_fit
from foundry_sim.facts.variants import Variant, engines_for, variants
from foundry_sim.facts.weights import Layout
from foundry_sim.frame import DEFAULT_CHUNK, DEFAULT_SEQUENCES, DEFAULT_UTILIZATION
from foundry_sim.physics.step import Setup, StepModel
from foundry_sim.predict import ArrayPrediction, predict_arrays
from foundry_sim.search.calibrated import calibrated
from foundry_sim.search.plans import BlockedConfiguration, DeviceGroup, SimulationRequest

Floats = NDArray[np.float64]
_REPLICAS_DENSE = 32  # every count up to here, then multiples
_SHARES = (0.25, 0.5, 0.75, 1.0)
_MANY_TOKENS = 1e15  # cache capacity of models that keep none


@dataclass(frozen=True, slots=True)
class Block:
    """Candidates that share device group, engine and precision. ``device`` is scaled when it is shared."""

    group: DeviceGroup
    device: Device
    span: Span
    engine: str
    variant: Variant
    limits: EngineLimits
    price_nanos_per_hour: int
    share: float = 1.0
    role: str = "serve"


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows of one block: which layout, how many replicas, what is predicted for one of them."""

    block: Block
    layouts: tuple[Layout, ...]
    budgets: tuple[MemoryBudget, ...]
    layout_index: NDArray[np.intp]
    replicas: NDArray[np.int64]
    load: Floats
    predicted: ArrayPrediction

    def __len__(self) -> int:
        return len(self.replicas)


def max_model_len(request: SimulationRequest, architecture: Architecture) -> int:
    """The longest request to admit: twice the mean length (at least 4,096), never beyond the model's own limit."""
    if request.max_model_len:
        return min(request.max_model_len, architecture.max_position)
    wanted = 2 * (request.workload.input_tokens + request.workload.output_tokens)
    return min(architecture.max_position, max(4096, -(-wanted // 1024) * 1024))


def blocks(request: SimulationRequest, architecture: Architecture) -> Iterator[Block]:
    """Device group × engine × precision (× share of a device in shared mode). Unknown devices raise DeviceError."""
    for group in request.device_groups:
        base = device(group.device)
        for share in _shares(request, group):
            scaled = _scaled(base, share)
            for engine in engines_for(architecture, base, request.engines):
                for variant in variants(architecture, base, engine, request.quantisation == "allowed"):
                    yield Block(
                        group,
                        scaled,
                        Span(scaled, group.nodes, group.devices_per_node),
                        engine,
                        variant,
                        _limits(request, engine, variant),
                        round(share * _price(request, group, base)),
                        share,
                    )


def _shares(request: SimulationRequest, group: DeviceGroup) -> tuple[float, ...]:
    if request.mode == "dedicated":
        return (1.0,)
    return tuple(share for share in _SHARES if share <= group.device_share)


def _scaled(whole: Device, share: float) -> Device:
    """A slice of a device as HAMi grants it: that part of memory and of compute; bandwidth is assumed to follow."""
    if share >= 1.0:
        return whole
    return replace(
        whole,
        memory_bytes=int(whole.memory_bytes * share),
        memory_bandwidth_bytes_per_s=whole.memory_bandwidth_bytes_per_s * share,
        peak_flops={name: flops * share for name, flops in whole.peak_flops.items()},
    )


def _price(request: SimulationRequest, group: DeviceGroup, base: Device) -> int:
    own = group.price_nanos_per_hour
    return own if own is not None else base.price_nanos_per_hour[request.purchase]


def _limits(request: SimulationRequest, engine: str, variant: Variant) -> EngineLimits:
    """Room for the whole load in one instance, up to the engine's default, so that one limit serves all rows."""
    load = request.workload.concurrency or 256
    sequences = min(DEFAULT_SEQUENCES[engine], max(64, 1 << (load - 1).bit_length()))
    return EngineLimits(
        max_num_seqs=sequences,
        chunk_tokens=DEFAULT_CHUNK,
        memory_utilization=DEFAULT_UTILIZATION[engine],
        lora_adapters=request.lora.adapters if request.lora else 0,
        lora_rank=request.lora.rank if request.lora else 16,
    )


def candidates(
    request: SimulationRequest, architecture: Architecture, block: Block, only: Layout | None = None
) -> Candidates | None:
    """The rows of all the block's layouts, or of one, with predictions; None when nothing fits or all is blocked."""
    kept, budgets = fitting(request, architecture, block, only)
    if not kept:
        return None
    counts = [replica_counts(request, block, layout) for layout in kept]
    index = np.repeat(np.arange(len(kept)), [len(count) for count in counts])
    replicas = np.concatenate([np.array(count, np.int64) for count in counts])
    if not len(replicas):
        return None
    load = per_replica_load(request, replicas)
    predicted = predicted_rows(request, architecture, block, kept, budgets, index, load)
    return Candidates(block, tuple(kept), tuple(budgets), index, replicas, load, predicted)


def fitting(
    request: SimulationRequest, architecture: Architecture, block: Block, only: Layout | None = None
) -> tuple[list[Layout], list[MemoryBudget]]:
    """The block's layouts, or the one, that fit in memory and are not blocked, each with its budget."""
    longest = max_model_len(request, architecture)
    found = ((layout, memory_of(request, architecture, block, layout, longest))
             for layout in _layouts(request, architecture, block) if only in (None, layout))  # fmt: skip
    pairs = [(layout, budget) for layout, budget in found if budget is not None]
    return [layout for layout, _ in pairs], [budget for _, budget in pairs]


def _layouts(request: SimulationRequest, architecture: Architecture, block: Block) -> list[Layout]:
    if request.mode == "shared":
        found = [Layout()]
    else:
        found = layouts(architecture, block.span, block.variant.precision, block.engine)
    return [layout for layout in found if not blocked_by(request.blocked, block, layout)]


def blocked_by(rules: list[BlockedConfiguration], block: Block, layout: Layout) -> BlockedConfiguration | None:
    """The first rule that forbids this configuration."""
    for rule in rules:
        pairs = (
            (rule.engine, block.engine),
            (rule.device, block.device.name),
            (rule.weights, block.variant.precision.weights),
            (rule.tp, layout.tp),
            (rule.pp, layout.pp),
            (rule.ep, layout.ep),
        )
        if all(wanted is None or wanted == actual for wanted, actual in pairs):
            return rule
    return None


def memory_of(
    request: SimulationRequest, architecture: Architecture, block: Block, layout: Layout, longest: int
) -> MemoryBudget | None:
    """The budget at the workload's length; None when one request of the longest length would not fit."""
    work = request.workload

    found = budget_of(architecture, block, layout, work.input_tokens + work.output_tokens, work.input_tokens)
    if not found.fits:
        return None
    roomy = found.free_kv_bytes >= found.kv_bytes_per_token * longest
    return found if roomy or budget_of(architecture, block, layout, longest, longest).fits else None


def budget_of(architecture: Architecture, block: Block, layout: Layout, context: int, prompt: int = 0) -> MemoryBudget:
    """Of one layout, when a sequence may reach ``context`` tokens, of which ``prompt`` come at once."""
    return budget(
        architecture, block.device, block.variant.precision, tp=layout.tp, pp=layout.pp, ep=layout.ep, dp=layout.dp,
        limits=block.limits, context_tokens=context, prompt_tokens=prompt,
    )  # fmt: skip


def most_replicas(request: SimulationRequest, block: Block, layout: Layout) -> int:
    """How many replicas the group's devices hold, whatever is asked for."""
    if request.mode == "shared":
        return block.group.devices * int(block.group.device_share / block.share + 1e-9)
    return replicas_that_fit(block.span, layout.devices, layout.tp)


def replica_counts(request: SimulationRequest, block: Block, layout: Layout) -> list[int]:
    most = most_replicas(request, block, layout)
    if request.replicas:
        return [request.replicas] if request.replicas <= most else []
    if request.workload.concurrency:
        most = min(most, request.workload.concurrency)
    counts = list(range(1, min(most, _REPLICAS_DENSE) + 1))
    step = _REPLICAS_DENSE // 4
    while counts and counts[-1] < most:
        counts.append(min(most, counts[-1] + step))
        step = step * 3 // 2
    return counts


def per_replica_load(request: SimulationRequest, replicas: NDArray[np.int64]) -> Floats:
    """Users or requests/s of the busiest replica; users are whole."""
    work = request.workload
    if work.concurrency:
        return np.asarray(-(-work.concurrency // replicas), float)
    return np.asarray((work.rate_per_s or 0.0) / replicas, float)


def cache_tokens(found: MemoryBudget, layout: Layout) -> float:
    """Capacity in tokens of sequences of the workload's length, windows and states counted; all dp ranks."""
    if not found.kv_bytes_per_sequence:
        return _MANY_TOKENS
    return found.free_kv_bytes / found.kv_bytes_per_sequence * found.context_tokens * layout.dp


def step_model(architecture: Architecture, block: Block, layout: Layout) -> StepModel:
    """Steps of one replica of this layout."""
    return StepModel(
        Setup(
            architecture, block.device, block.engine, None, None, block.variant.precision, layout.tp, layout.pp,
            layout.ep, layout.dp, chunk_tokens=block.limits.chunk_tokens,
        )
    )  # fmt: skip


def predicted_rows(
    request: SimulationRequest,
    architecture: Architecture,
    block: Block,
    kept: list[Layout],
    budgets: list[MemoryBudget],
    index: NDArray[np.intp],
    load: Floats,
) -> ArrayPrediction:
    """Predictions for rows that pick a layout by ``index`` and put ``load`` on one replica of it."""
    if architecture.task != "generate":
        outcome, room = encoded(
            architecture, block.device, block.engine, block.variant.precision, kept, index, load,
            tokens=request.workload.input_tokens, chunk_tokens=block.limits.chunk_tokens,
            closed=request.workload.concurrency is not None,
        )  # fmt: skip
        return ArrayPrediction(outcome, room, np.ones(len(load), bool))

    def column(values: list[float]) -> Floats:
        return np.array(values, float)[index]

    split = {name: column([getattr(layout, name) for layout in kept]) for name in ("tp", "pp", "ep", "dp")}
    predicted = predict_arrays(
        architecture,
        block.device,
        block.variant.precision,
        tp=split["tp"],
        pp=split["pp"],
        ep=split["ep"],
        dp=split["dp"],
        isl=float(request.workload.input_tokens),
        osl=float(max(1, request.workload.output_tokens)),
        kind="closed" if request.workload.concurrency else "open",
        load=load,
        kv_tokens=column([cache_tokens(found, layout) for found, layout in zip(budgets, kept, strict=True)]),
        engine=block.engine,
        max_sequences=column([float(block.limits.max_num_seqs * layout.dp) for layout in kept]),
        chunk_tokens=float(block.limits.chunk_tokens),
        method=request.method,
    )
    place = (block.group.device, block.engine, block.variant.precision)
    return calibrated(request, architecture, place, predicted, load, split)
