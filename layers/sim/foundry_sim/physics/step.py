"""One engine step in closed form: a roofline per kind of work, summed over the layers.

A step runs `prefill_tokens` new prompt tokens and one token of each of `decode_batch` sequences. Its time is the sum
of dense GEMMs, expert GEMMs, attention, collectives and fixed overheads; each kind of work takes the smooth maximum
of its memory and its compute time, which is never below either, so MFU and MBU stay below 100 %.

Sources: roofline model (Williams et al., CACM 2009); expected distinct experts E(1-(1-k/E)^n) under uniform routing;
ring all-reduce volume 2(p-1)/p; MLA absorption (DeepSeek-V2, arXiv 2405.04434).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.devices import Device
from foundry_sim.facts.precision import Precision
from foundry_sim.facts.versions import software_days
from foundry_sim.physics.terms import Array, Terms, terms

_COLLECTIVE_BYTES = 2.0  # activations travel in 16 bit
_ACTIVATION_TOUCHES = 12.0  # times a hidden vector crosses memory in a layer (norms, residuals, rotary, activation)
_EXPERT_TOUCHES = 8.0  # the same for every expert that a token visits (gathered, multiplied, summed)


@dataclass(frozen=True, slots=True)
class Setup:
    """One engine instance: what runs, where, and split how. `dp` is attention data parallelism."""

    architecture: Architecture
    device: Device
    engine: str
    engine_version: str | None
    date: str | None
    precision: Precision
    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1
    spec_decode: dict[str, Any] | None = None
    max_num_seqs: int = 1024
    chunk_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class Shape:
    """How a row is split over devices. `dp` is attention data parallelism, `ep` expert parallelism."""

    tp: Array
    pp: Array
    ep: Array
    dp: Array

    @classmethod
    def of(cls, tp: ArrayLike, pp: ArrayLike = 1, ep: ArrayLike = 1, dp: ArrayLike = 1) -> "Shape":
        return cls(*(np.asarray(x, float) for x in (tp, pp, ep, dp)))


@dataclass(frozen=True, slots=True)
class Work:
    """What one attention rank does in a step. `prefill_context` is the mean number of keys each new token sees."""

    prefill_tokens: Array
    prefill_context: Array
    decode_batch: Array
    decode_context: Array
    tokens_per_sequence: Array  # > 1 when draft tokens are verified


@dataclass(frozen=True, slots=True)
class Parts:
    """Seconds of a step by kind of work."""

    dense: Array
    head: Array
    experts: Array
    attention: Array
    collectives: Array
    fixed: Array

    @property
    def total(self) -> Array:
        return self.dense + self.head + self.experts + self.attention + self.collectives + self.fixed


_NONE = np.asarray(0.0)
_ONE = np.asarray(1.0)


class StepModel:
    """Closed-form times in milliseconds of one engine step, vectorised by NumPy broadcasting.

    Batches and tokens are per engine instance (all data-parallel ranks together).
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        days = software_days(setup.engine, setup.engine_version, setup.date)
        self.terms = terms(setup.architecture, setup.device, setup.engine, setup.precision, days)
        self.shape = Shape.of(setup.tp, setup.pp, setup.ep, setup.dp)

    def prefill_ms(self, new_tokens: ArrayLike, context_tokens: ArrayLike = 0) -> Array:
        """Time to process `new_tokens` of one prompt behind `context_tokens` already cached."""
        new, cached = np.asarray(new_tokens, float), np.asarray(context_tokens, float)
        return prefill_s(self.terms, self.shape, new, cached) * 1e3

    def decode_ms(self, batch: ArrayLike, mean_context_tokens: ArrayLike) -> Array:
        """Time of a pure decode step; with PP the time between two tokens of one sequence."""
        count, context = np.asarray(batch, float), np.asarray(mean_context_tokens, float)
        return decode_s(self.terms, self.shape, count, context) * 1e3

    def step_ms(self, prefill_tokens: ArrayLike, decode_batch: ArrayLike, mean_context_tokens: ArrayLike) -> Array:
        """Time of a mixed step: chunked prefill beside decoding sequences."""
        new, batch = np.asarray(prefill_tokens, float), np.asarray(decode_batch, float)
        work = Work(new, new / 2, batch, np.asarray(mean_context_tokens, float), _ONE)
        return step_s(self.terms, self.shape, work) * 1e3


def prefill_s(t: Terms, shape: Shape, new_tokens: Array, cached_tokens: Array) -> Array:
    """Seconds of one prompt's prefill in one step, alone on its attention rank."""
    work = Work(new_tokens, cached_tokens + new_tokens / 2, _NONE, _NONE, _ONE)
    return rank_step_s(t, shape, work, busy_ranks=_ONE)


def decode_parts(t: Terms, shape: Shape, batch: Array, context: Array, tokens_per_sequence: Array = _ONE) -> Parts:
    """The time between two tokens of a sequence; PP cuts the batch into as many micro-batches as stages."""
    per_rank = np.maximum(batch / shape.dp / shape.pp, np.minimum(1.0, batch))
    busy = np.minimum(shape.dp, np.maximum(batch, 1.0))
    return rank_parts(t, shape, Work(_NONE, _NONE, per_rank, context, tokens_per_sequence), busy)


def decode_s(t: Terms, shape: Shape, batch: Array, context: Array, tokens_per_sequence: Array = _ONE) -> Array:
    """Seconds between two tokens of a sequence."""
    return decode_parts(t, shape, batch, context, tokens_per_sequence).total


def step_s(t: Terms, shape: Shape, work: Work) -> Array:
    """A mixed step of the whole instance, its work spread evenly over the data-parallel ranks."""
    new, batch = work.prefill_tokens / shape.dp, work.decode_batch / shape.dp
    share = Work(new, work.prefill_context, batch, work.decode_context, work.tokens_per_sequence)
    return rank_step_s(t, shape, share, shape.dp)


def rank_parts(t: Terms, shape: Shape, work: Work, busy_ranks: Array) -> Parts:
    """A step in which `busy_ranks` attention ranks each do `work`, by kind of work."""
    decode = work.decode_batch * work.tokens_per_sequence
    tokens = work.prefill_tokens + decode
    return Parts(
        dense_s(t, shape, tokens),
        head_s(t, shape, decode + np.minimum(work.prefill_tokens, 1.0)),
        experts_s(t, shape, tokens * busy_ranks),
        attention_s(t, shape, work),
        collectives_s(t, shape, tokens),
        fixed_s(t, work.decode_batch),
    )


def rank_step_s(t: Terms, shape: Shape, work: Work, busy_ranks: Array) -> Array:
    """Seconds of that step."""
    return rank_parts(t, shape, work, busy_ranks).total


def smooth_max(a: Array, b: Array, power: Array) -> Array:
    """(aᵖ + bᵖ)^(1/p): at least max(a, b), because kernels never overlap memory and compute perfectly."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    ratio = low / np.maximum(high, 1e-300)
    return np.asarray(high * (1.0 + ratio**power) ** (1.0 / power))


def _gemm_efficiency(peak: Array, rows: Array, half: Array) -> Array:
    return np.asarray(np.maximum(peak * rows / (rows + half), 1e-9))


def dense_s(t: Terms, shape: Shape, tokens: Array) -> Array:
    """Projections and dense MLPs; replicated projections are read and computed by every TP rank."""
    projection = t.attention_params / shape.tp + t.replicated_params
    mlp = t.mlp_params / shape.tp
    activation = t.layers * tokens * t.hidden * 2.0 * _ACTIVATION_TOUCHES
    moved = projection * t.attention_bytes + mlp * t.weight_bytes + activation
    gain = _gemm_efficiency(t.linear_efficiency, tokens, t.half_tokens)
    compute = 2.0 * tokens * (projection / t.projection_flops + mlp / t.linear_flops) / gain
    return smooth_max(moved / (t.memory_bandwidth * t.memory_efficiency), compute, t.overlap)


def head_s(t: Terms, shape: Shape, rows: Array) -> Array:
    """The output projection, in 16 bit, for the rows that yield a token."""
    params = t.head_params / shape.tp
    memory = params * 2.0 / (t.memory_bandwidth * t.memory_efficiency) * np.minimum(rows, 1.0)
    compute = 2.0 * rows * params / (t.attention_flops * t.linear_efficiency)
    return smooth_max(memory, compute, t.overlap)


def distinct_experts(experts: ArrayLike, per_token: ArrayLike, tokens: ArrayLike) -> Array:
    """Expected number of different experts that `tokens` uniformly routed tokens touch."""
    count, chosen = np.asarray(experts, float), np.asarray(per_token, float)
    hit = np.minimum(chosen / np.maximum(count, 1.0), 1 - 1e-12)
    return np.asarray(count * -np.expm1(np.asarray(tokens, float) * np.log1p(-hit)))


def experts_s(t: Terms, shape: Shape, tokens: Array) -> Array:
    """Expert GEMMs; the experts are split over all TP×DP ranks, by expert or by column."""
    ranks = shape.tp * shape.dp
    touched = distinct_experts(t.experts, t.experts_per_token, tokens)
    weights = touched * t.expert_params * t.moe_bytes / ranks
    pairs = tokens * t.experts_per_token / shape.ep
    activation = t.moe_layers * pairs * t.hidden * 2.0 * _EXPERT_TOUCHES
    memory = (weights / t.moe_memory_efficiency + activation / t.memory_efficiency) / t.memory_bandwidth
    rows = tokens * t.experts_per_token / np.maximum(touched, 1.0)
    gain = _gemm_efficiency(t.moe_efficiency, rows, t.moe_half_rows)
    compute = 2.0 * tokens * t.experts_per_token * t.expert_params / ranks / (t.moe_flops * gain)
    return smooth_max(memory, compute, t.overlap)


def kv_read_bytes(t: Terms, shape: Shape, context: Array) -> Array:
    """Cache bytes one rank reads to decode one token of one sequence."""
    split = np.where(t.kv_sharded > 0, np.minimum(shape.tp, np.maximum(t.kv_heads, 1.0)), 1.0)
    elements = t.kv_elements_full * context + t.kv_elements_window * np.minimum(context, t.window_tokens)
    return np.asarray(elements * t.kv_bytes / split + t.state_bytes / shape.tp)


def attention_s(t: Terms, shape: Shape, work: Work) -> Array:
    """Cache reads and score FLOPs; every draft token is one more query against the same cache."""
    rate = t.attention_flops * t.attention_efficiency * shape.tp
    read = work.decode_batch * kv_read_bytes(t, shape, work.decode_context) / (t.memory_bandwidth * t.kv_efficiency)
    queries = work.decode_batch * work.tokens_per_sequence
    decode = smooth_max(read, queries * work.decode_context * t.pair_flops_decode / rate, t.overlap)
    windowed = np.minimum(work.prefill_context, t.window_tokens)
    pairs = work.prefill_context * t.pair_flops_full + windowed * t.pair_flops_window
    return np.asarray(decode + work.prefill_tokens * pairs / rate)


def collectives_s(t: Terms, shape: Shape, tokens: Array) -> Array:
    """Two all-reduces per layer over TP, all-to-all around the experts when attention is data-parallel, PP hops."""
    vector = tokens * t.hidden * _COLLECTIVE_BYTES
    reduce = 2.0 * t.layers * _transfer_s(t, shape.tp, vector * 2.0)
    fan_out = np.minimum(np.maximum(t.experts_per_token, 1.0), shape.dp)
    exchange = 2.0 * t.moe_layers * _transfer_s(t, shape.tp * shape.dp, vector * fan_out)
    hops = (shape.pp - 1.0) * (vector / t.network_bandwidth + 2.0 * t.collective_s)
    return np.asarray((shape.tp > 1) * reduce + (shape.dp > 1) * exchange + hops)


def _transfer_s(t: Terms, group: Array, payload: Array) -> Array:
    """Latency plus volume·(p-1)/p over the slowest link that the group crosses."""
    far = group > t.domain_size
    bandwidth = np.where(far, t.network_bandwidth, t.link_bandwidth) * t.link_efficiency
    latency = (t.collective_s + np.log2(np.maximum(group, 1.0)) * t.collective_hop_s) * (1.0 + 2.0 * far)
    return np.asarray(latency + payload * (group - 1.0) / group / bandwidth)


def fixed_s(t: Terms, sequences: Array) -> Array:
    """Launches and tails per layer, host work per step and per sequence."""
    layers = t.layers * t.layer_s + t.moe_layers * t.moe_layer_s
    mixers = t.latent_layers * t.latent_layer_s + t.recurrent_layers * t.recurrent_layer_s
    return np.asarray(layers + mixers + t.step_s + sequences * t.sequence_s)
