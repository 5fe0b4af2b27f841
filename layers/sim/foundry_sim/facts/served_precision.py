"""The formats that a checkpoint is served in: as asked, where nothing is asked as it ships and as the device can."""

from collections.abc import Mapping

from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.devices import Device
from foundry_sim.facts.precision import Precision, canonical


def resolve_precision(a: Architecture, d: Device, engine: str, wanted: Mapping[str, str | None]) -> Precision:
    """Fill what the request leaves open from the checkpoint, the engine's defaults and what the device can run."""
    shipped = a.checkpoint_precision
    if _is_shipped(wanted, shipped):
        weights, moe, attention = shipped.weights, shipped.moe, shipped.attention
    else:
        weights = _native(canonical(wanted.get("weights") or shipped.weights), d)
        moe = _native(canonical(wanted.get("moe") or weights), d)
        attention = shipped.attention if weights == shipped.weights else _attention(a, weights)
    return Precision(
        weights=weights,
        activations=canonical(wanted.get("activations") or _activations(weights, moe, shipped, d)),
        kv=canonical(wanted.get("kv") or _cache(engine, weights, shipped, d)),
        moe=moe,
        attention=attention,
    )


def _is_shipped(wanted: Mapping[str, str | None], shipped: Precision) -> bool:
    """One format named for all: a checkpoint known by its experts' format keeps the rest as it ships. Of experts that
    are named the format is meant."""
    weights, moe = wanted.get("weights"), wanted.get("moe")
    of_experts = not moe or _alike(moe, shipped.moe)
    return of_experts and (not weights or _alike(weights, shipped.weights) or _alike(weights, shipped.moe))


def _alike(one: str, other: str) -> bool:
    """Sources say "fp4" of either four-bit float."""
    four = {"nvfp4", "mxfp4"}
    return canonical(one) == other or {canonical(one), other} <= four


def _native(name: str, d: Device) -> str:
    """ "fp4" means NVFP4 on NVIDIA and MXFP4 on AMD."""
    return "mxfp4" if name == "nvfp4" and d.vendor == "amd" else name


def _attention(a: Architecture, weights: str) -> str:
    """Four-bit checkpoints of MLA models keep their attention projections in 16 bit."""
    latent = "mla" in a.attention
    return "bf16" if latent and weights in {"nvfp4", "mxfp4", "int4"} else weights


def _activations(weights: str, moe: str, shipped: Precision, d: Device) -> str:
    """What a device has no units for runs as weight-only quantisation, whatever the checkpoint was made for."""
    as_shipped = weights == shipped.weights and moe == shipped.moe and d.supports(shipped.activations)
    if as_shipped and shipped.activations not in {"bf16", "fp16"}:
        return shipped.activations
    widest = weights if weights not in {"bf16", "fp16"} else moe
    if widest in {"nvfp4", "mxfp4"}:
        return widest if d.supports("nvfp4") else "bf16"
    return widest if widest in {"fp8", "mxfp8", "int8"} and d.supports(widest) else "bf16"


def _cache(engine: str, weights: str, shipped: Precision, d: Device) -> str:
    if shipped.kv not in {"bf16", "fp16"}:
        return shipped.kv
    if weights not in {"fp8", "nvfp4", "mxfp4"} or not d.supports("fp8"):
        return "bf16"
    return "fp8" if engine == "trtllm" or (d.supports("nvfp4") and d.vendor == "nvidia") else "bf16"
