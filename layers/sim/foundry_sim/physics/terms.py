"""What one engine step costs, reduced to numbers: one row of terms per (architecture, device, engine, precision).

Every formula in `physics` is elementwise over these rows, so one row (a `StepModel`) and a hundred thousand rows
(the search) run through the same code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from foundry_sim.facts.architecture import Architecture, Layer, Mixer
from foundry_sim.facts.devices import Device
from foundry_sim.facts.precision import Precision, bytes_of, cache_bytes_of
from foundry_sim.physics.efficiency import Efficiency, efficiency, family, years_old

Array = NDArray[np.float64]

_FOUR_BIT = {"nvfp4", "mxfp4"}
_EIGHT_BIT = {"fp8", "mxfp8", "int8"}
_NO_WINDOW = 1e12


@dataclass(frozen=True, slots=True)
class Terms:
    """Per-row constants; 0-D arrays for one row, 1-D after `stack`. Parameters are counts over all layers."""

    layers: Array
    latent_layers: Array  # layers with MLA
    recurrent_layers: Array  # layers with linear attention or a state-space mixer
    hidden: Array
    attention_params: Array  # projections split over TP
    replicated_params: Array  # projections that every rank holds whole (MLA down-projections)
    mlp_params: Array  # dense MLP, shared experts and routers
    expert_params: Array  # one expert, summed over the MoE layers
    experts: Array
    experts_per_token: Array
    moe_layers: Array
    head_params: Array  # the output projection: vocabulary × hidden
    kv_heads: Array
    kv_elements_full: Array  # cached elements per token, layers that keep the whole context
    kv_elements_window: Array  # the same for sliding-window layers
    window_tokens: Array
    kv_sharded: Array  # 1: heads are split over TP; 0: the latent (MLA) is kept whole on every rank
    state_bytes: Array  # recurrent state of one sequence (linear attention, SSM)
    pair_flops_full: Array  # per (query, key) pair of a prefill, layers with full context
    pair_flops_window: Array
    pair_flops_decode: Array  # per (query, cached token) of a decode step (MLA is absorbed)
    weight_bytes: Array  # per dense MLP parameter
    attention_bytes: Array  # per attention-projection parameter
    moe_bytes: Array
    kv_bytes: Array
    memory_bandwidth: Array
    linear_flops: Array
    projection_flops: Array
    moe_flops: Array
    attention_flops: Array
    link_bandwidth: Array  # bytes/s per device, one direction, inside the fast domain
    domain_size: Array  # devices joined by that link
    network_bandwidth: Array
    memory_efficiency: Array
    kv_efficiency: Array
    linear_efficiency: Array
    moe_efficiency: Array
    moe_memory_efficiency: Array
    attention_efficiency: Array
    half_tokens: Array  # rows of a GEMM at which half of its peak efficiency is reached
    moe_half_rows: Array  # the same for expert GEMMs
    layer_s: Array  # fixed time per layer: launches, norms, tails
    moe_layer_s: Array
    latent_layer_s: Array
    recurrent_layer_s: Array
    step_s: Array  # fixed time per step: scheduler, sampler, host
    sequence_s: Array  # host and sampling time per sequence in the step
    prefill_s: Array  # fixed time per prompt: tokeniser, queue hand-over, first-token path
    collective_s: Array  # latency of one small all-reduce
    collective_hop_s: Array  # the same per doubling of the group
    link_efficiency: Array
    burst: Array  # share of the start burst in the mean TTFT
    overlap: Array  # exponent of the smooth maximum of memory and compute time


def matrix_flops(weights: str, activations: str, device: Device) -> float:
    """Dense FLOP/s that a GEMM really runs at; weight-only quantisation multiplies in 16 bit."""
    if activations in _FOUR_BIT and weights in _FOUR_BIT and device.supports("nvfp4"):
        return device.flops_for("nvfp4")
    eight = weights in _EIGHT_BIT | _FOUR_BIT and activations in _EIGHT_BIT | _FOUR_BIT
    return (
        device.flops_for("int8" if "int8" in (weights, activations) else "fp8") if eight else device.flops_for("bf16")
    )


def terms(
    architecture: Architecture, device: Device, engine: str, precision: Precision, days: float | None = None
) -> Terms:
    """One row of terms, from the config facts, the device table and the fitted efficiencies. `days` is the age of
    the software as `versions.software_days` counts it."""
    eff = efficiency(family(device), device.vendor, engine, years_old(days))
    values = _architecture_terms(architecture) | _precision_terms(precision, device) | _device_terms(device)
    values |= efficiency_terms(eff, values["weight_bytes"], values["moe_bytes"])
    return Terms(**{name: np.asarray(value) for name, value in values.items()})


def stack(rows: Sequence[Terms]) -> Terms:
    """Rows of scalars → one Terms of arrays (shape: rows)."""
    table = np.array([[getattr(row, f.name) for f in fields(Terms)] for row in rows], dtype=np.float64)
    return Terms(**{f.name: table[:, i] for i, f in enumerate(fields(Terms))})


def take(rows: Terms, index: NDArray[np.intp]) -> Terms:
    """Repeat or select rows of a stacked Terms by index."""
    return Terms(**{f.name: getattr(rows, f.name)[index] for f in fields(Terms)})


def _architecture_terms(a: Architecture) -> dict[str, float]:
    def total(of: Callable[[Layer], float], where: Callable[[Layer], bool] = lambda _: True) -> float:
        return float(sum(of(block) * count for block, count in a.groups if where(block)))

    windowed = [m.window for m in (b.mixer for b, _ in a.groups) if m.window]
    moe = [b.feed_forward for b, _ in a.groups if b.feed_forward.kind == "moe"]
    return {
        "layers": float(a.layers),
        "latent_layers": total(lambda _: 1.0, lambda b: b.mixer.kind == "mla"),
        "recurrent_layers": total(lambda _: 1.0, lambda b: b.mixer.kind in ("linear", "ssm")),
        "hidden": float(a.hidden),
        "attention_params": total(lambda b: b.mixer.projection_parameters - b.mixer.replicated_parameters),
        "replicated_params": total(lambda b: b.mixer.replicated_parameters),
        "mlp_params": total(lambda b: b.feed_forward.dense_parameters + b.feed_forward.router_parameters),
        "expert_params": total(lambda b: b.feed_forward.expert_parameters),
        "experts": float(max((f.experts for f in moe), default=0)),
        "experts_per_token": float(max((f.experts_per_token for f in moe), default=0)),
        "moe_layers": total(lambda _: 1.0, lambda b: b.feed_forward.kind == "moe"),
        "head_params": float(a.vocab * a.hidden),
        "kv_heads": float(max((b.mixer.kv_heads for b, _ in a.groups), default=1) or 1),
        "kv_elements_full": total(lambda b: b.mixer.kv_elements_per_token, _keeps_all),
        "kv_elements_window": total(lambda b: b.mixer.kv_elements_per_token, lambda b: not _keeps_all(b)),
        "window_tokens": float(max(windowed, default=_NO_WINDOW)),
        "kv_sharded": 0.0 if any(b.mixer.kind == "mla" for b, _ in a.groups) else 1.0,
        "state_bytes": total(lambda b: b.mixer.state_bytes),
        "pair_flops_full": total(lambda b: _pair_flops(b.mixer), _keeps_all),
        "pair_flops_window": total(lambda b: _pair_flops(b.mixer), lambda b: not _keeps_all(b)),
        "pair_flops_decode": total(lambda b: _decode_pair_flops(b.mixer), _keeps_all),
    }


def _keeps_all(block: Layer) -> bool:
    return block.mixer.window is None


def _pair_flops(m: Mixer) -> float:
    """FLOPs of QKᵀ and PV for one (query, key) pair of a prefill: two multiply-adds per head dimension."""
    if m.kv_elements_per_token == 0:
        return 0.0
    return 2.0 * m.heads * (m.head_dim + (m.v_head_dim or m.head_dim))


def _decode_pair_flops(m: Mixer) -> float:
    """The same for decoding; absorbed MLA multiplies with the latent (K) and its value part (V)."""
    return 4.0 * m.heads * m.kv_elements_per_token if m.kind == "mla" else _pair_flops(m)


def _precision_terms(p: Precision, device: Device) -> dict[str, float]:
    def rate(weights: str) -> float:
        return matrix_flops(weights, p.activations, device)

    return {
        "weight_bytes": bytes_of(p.weights),
        "attention_bytes": bytes_of(p.attention),
        "moe_bytes": bytes_of(p.moe),
        "kv_bytes": cache_bytes_of(p.kv),
        "linear_flops": rate(p.weights),
        "projection_flops": rate(p.attention),
        "moe_flops": rate(p.moe),
        "attention_flops": device.flops_for("bf16"),
    }


def _device_terms(d: Device) -> dict[str, float]:
    return {
        "memory_bandwidth": float(d.memory_bandwidth_bytes_per_s),
        "link_bandwidth": float(d.link_bytes_per_s),
        "domain_size": float(d.link_domain_devices),
        "network_bandwidth": float(d.network_bytes_per_s),
    }


def efficiency_terms(e: Efficiency, weight_bytes: float, moe_bytes: float) -> dict[str, float]:
    """The fitted constants as terms; narrow formats reach a smaller share of their higher peaks."""
    linear, memory = _narrowed(weight_bytes, (e.eight_bit, e.eight_bit_memory), (e.four_bit, e.four_bit_memory))
    moe, moe_memory = _narrowed(moe_bytes, (e.moe_eight_bit, 1.0), (e.moe_four_bit, e.four_bit_memory))
    return {
        "memory_efficiency": e.memory * memory,
        "kv_efficiency": e.kv,
        "linear_efficiency": e.linear * linear,
        "moe_efficiency": e.moe * moe,
        "moe_memory_efficiency": e.moe_memory * moe_memory,
        "attention_efficiency": e.attention,
        "half_tokens": e.half_tokens,
        "moe_half_rows": e.moe_half_rows,
        "layer_s": e.layer_us * 1e-6,
        "moe_layer_s": e.moe_layer_us * 1e-6,
        "latent_layer_s": e.latent_layer_us * 1e-6,
        "recurrent_layer_s": e.recurrent_layer_us * 1e-6,
        "step_s": e.step_us * 1e-6,
        "sequence_s": e.sequence_us * 1e-6,
        "prefill_s": e.prefill_us * 1e-6,
        "collective_s": e.collective_us * 1e-6,
        "collective_hop_s": e.collective_hop_us * 1e-6,
        "link_efficiency": e.link,
        "burst": e.burst,
        "overlap": e.overlap,
    }


def _narrowed(width_bytes: float, eight: tuple[float, float], four: tuple[float, float]) -> tuple[float, float]:
    """(factor on GEMM efficiency, factor on memory efficiency) of weights this wide."""
    if width_bytes < 0.75:
        return four
    return eight if width_bytes < 1.5 else (1.0, 1.0)
