"""What fits: weights, workspace and KV cache of one device, and the concurrency that leaves.

Per device: usable = memory × share × utilisation; weights, adapters, activation workspace and the engine's reserve come
off it; the rest is KV cache, of which the tightest pipeline stage decides how many tokens fit.
"""

from dataclasses import dataclass, replace
from typing import Literal

from foundry_sim.errors import ConfigurationError
from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.devices import Device
from foundry_sim.facts.precision import Precision, cache_bytes_of
from foundry_sim.facts.weights import Layout, Stage, cache_bytes_per_token, checkpoint_bytes, lora_bytes, stages

__all__ = [
    "EngineLimits",
    "Layout",
    "MemoryBudget",
    "activation_bytes",
    "budget",
    "checkpoint_bytes",
    "kv_bytes_per_token",
]

MIB = 1 << 20
# Driver context, allocator slack and cuBLAS workspaces; buffers of the collective library; captured graphs.
# Sizes as engines log them at start: vLLM "non_torch" memory of 0.5–0.9 GiB and graphs of 0.3–1 GiB, NCCL 0.4 GiB.
CONTEXT_BYTES = 640 * MIB
COLLECTIVES_BYTES = 400 * MIB
GRAPH_BYTES_PER_LAYER = 8 * MIB

Engine = Literal["vllm", "sglang", "trtllm"]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Engine settings that decide memory; defaults are vLLM's server defaults on a large GPU."""

    max_num_seqs: int = 256
    chunk_tokens: int = 8192
    memory_utilization: float = 0.9
    block_tokens: int = 16
    max_model_len: int | None = None
    lora_adapters: int = 0
    lora_rank: int = 16
    device_share: float = 1.0
    cuda_graphs: bool = True
    speculative: bool = False

    def __post_init__(self) -> None:
        for name, low in (("max_num_seqs", 1), ("chunk_tokens", 1), ("block_tokens", 1), ("lora_adapters", 0)):
            if getattr(self, name) < low:
                raise ConfigurationError(f"{name} must be at least {low}")
        for name in ("memory_utilization", "device_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigurationError(f"{name} must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes on one device of the tightest stage. ``max_concurrency`` counts sequences of ``context_tokens`` that a
    whole replica (all its dp ranks) holds at once, never more than max_num_seqs per rank."""

    memory_bytes: int
    usable_bytes: int
    weight_bytes: int
    lora_bytes: int
    activation_bytes: int
    reserve_bytes: int
    free_kv_bytes: int
    kv_bytes_per_token: int
    kv_bytes_per_sequence: int
    kv_blocks: int
    kv_tokens: int
    context_tokens: int
    max_concurrency: int
    fits: bool
    reason: str = ""


def budget(
    architecture: Architecture,
    device: Device,
    precision: Precision | None = None,
    *,
    tp: int = 1,
    pp: int = 1,
    ep: int = 1,
    dp: int = 1,
    limits: EngineLimits | None = None,
    context_tokens: int | None = None,
    prompt_tokens: int = 0,
) -> MemoryBudget:
    """The memory budget of a configuration; ``context_tokens`` is the length that one sequence may reach
    (default: ``limits.max_model_len``, else the model's own maximum). Never raises because it does not fit."""
    precision = precision or architecture.checkpoint_precision
    limits = limits or EngineLimits()
    layout = Layout(tp, pp, ep, dp)
    context = context_tokens or limits.max_model_len or architecture.max_position
    kept = _kept(architecture, device, layout, limits)
    # Most stages are alike; of equally tight ones the first is told.
    distinct = dict.fromkeys(stages(architecture, precision, layout))
    return min((_stage_budget(kept, layout, limits, stage, context, prompt_tokens) for stage in distinct), key=_room)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Bytes of a device that are the same in every stage."""

    memory: int
    usable: int
    speculation: int
    adapters: int
    workspace: int
    reserve: int


def _kept(architecture: Architecture, device: Device, layout: Layout, limits: EngineLimits) -> _Kept:
    memory = int(device.memory_bytes * limits.device_share)
    return _Kept(
        memory,
        int(memory * limits.memory_utilization),
        _speculation_bytes(architecture, layout, limits),
        lora_bytes(architecture, layout, limits.lora_adapters, limits.lora_rank),
        activation_bytes(architecture, layout, limits),
        reserve_bytes(architecture, device, layout, limits),
    )


def _room(found: MemoryBudget) -> float:
    return found.free_kv_bytes / max(1, found.kv_bytes_per_sequence)


def _stage_budget(
    kept: _Kept, layout: Layout, limits: EngineLimits, stage: Stage, context: int, prompt_tokens: int
) -> MemoryBudget:
    weight = stage.weight_bytes + kept.speculation
    free = kept.usable - weight - kept.adapters - kept.workspace - kept.reserve
    sequence = stage.sequence_bytes(context, prompt_tokens)
    held = max(0, free) // sequence if sequence else limits.max_num_seqs
    concurrency = min(held, limits.max_num_seqs) * layout.dp if free > 0 else 0
    per_token = stage.kv_bytes_per_token
    tokens = max(0, free) // per_token if per_token else 0
    return MemoryBudget(
        memory_bytes=kept.memory,
        usable_bytes=kept.usable,
        weight_bytes=weight,
        lora_bytes=kept.adapters,
        activation_bytes=kept.workspace,
        reserve_bytes=kept.reserve,
        free_kv_bytes=max(0, free),
        kv_bytes_per_token=per_token,
        kv_bytes_per_sequence=sequence,
        kv_blocks=tokens // limits.block_tokens,
        kv_tokens=tokens,
        context_tokens=context,
        max_concurrency=concurrency,
        fits=concurrency > 0,
        reason="" if concurrency > 0 else _shortfall(free, weight, kept.usable, sequence, context),
    )


def _shortfall(free: int, weight: int, usable: int, sequence: int, context: int) -> str:
    gib = 1 << 30
    if weight >= usable:
        return f"weights need {weight / gib:.1f} GiB of {usable / gib:.1f} GiB usable per device"
    if free <= 0:
        return f"weights and workspace exceed the {usable / gib:.1f} GiB usable per device by {-free / gib:.1f} GiB"
    return f"one sequence of {context:,} tokens needs {sequence / gib:.1f} GiB of cache, {free / gib:.1f} GiB is left"


def _speculation_bytes(architecture: Architecture, layout: Layout, limits: EngineLimits) -> int:
    """MTP layers are loaded only when they draft; in the checkpoint's dense format."""
    if not limits.speculative or not architecture.mtp_parameters:
        return 0
    shards = layout.tp * (layout.dp if architecture.is_moe else 1)
    return round(architecture.mtp_parameters / shards * (2.0 if not architecture.is_moe else 1.0))


def activation_bytes(architecture: Architecture, layout: Layout, limits: EngineLimits) -> int:
    """Peak workspace of one forward pass over ``chunk_tokens`` tokens in 16 bit, plus sampling over ``max_num_seqs``
    rows of logits (16-bit row, fp32 copy and its softmax). The whole batch is never materialised."""
    residual = 3 * architecture.hidden
    widest = max(_layer_width(architecture, index, layout) for index in range(len(architecture.groups)))
    forward = limits.chunk_tokens * (residual + widest) * 2
    generates = architecture.task == "generate"
    logits = limits.max_num_seqs * architecture.vocab * (2 + 4 + 4) if generates else 0
    return round(max(forward, logits))


def _layer_width(architecture: Architecture, index: int, layout: Layout) -> float:
    """Elements per token alive at once in a layer: projections of attention, or the MLP's halves and product."""
    layer, _ = architecture.groups[index]
    mixer, mlp = layer.mixer, layer.feed_forward
    values = mixer.v_head_dim or mixer.head_dim
    attention = (mixer.heads * (mixer.head_dim + values) + 2 * mixer.kv_heads * mixer.head_dim) / layout.tp
    if mixer.kind == "mla":
        attention += mixer.heads * (mixer.head_dim + values) / layout.tp
    if mlp.kind != "moe":
        return max(attention, 3 * mlp.intermediate / layout.tp)
    # Each token is copied to its experts: hidden in and out, and the gate/up/product of each, spread over tp × dp.
    routed = mlp.experts_per_token * (2 * architecture.hidden + 3 * mlp.moe_intermediate) / layout.tp
    return max(attention, routed + 3 * mlp.shared_intermediate / layout.tp)


def reserve_bytes(architecture: Architecture, device: Device, layout: Layout, limits: EngineLimits) -> int:
    """What the engine and the driver keep besides weights, workspace and cache."""
    if device.is_cpu:
        return CONTEXT_BYTES
    layers = -(-architecture.layers // layout.pp)
    graphs = layers * GRAPH_BYTES_PER_LAYER if limits.cuda_graphs and architecture.task == "generate" else 0
    collectives = COLLECTIVES_BYTES if layout.devices > 1 else 0
    return CONTEXT_BYTES + collectives + graphs


def kv_bytes_per_token(architecture: Architecture, kv: str | None = None, tp: int = 1) -> int:
    """Cache bytes one token takes on one device over all layers (windows not yet full)."""
    precision = replace(architecture.checkpoint_precision, kv=kv) if kv else architecture.checkpoint_precision
    cache_bytes_of(precision.kv)
    total = sum(count * cache_bytes_per_token(layer.mixer, precision, tp) for layer, count in architecture.groups)
    return round(total)
