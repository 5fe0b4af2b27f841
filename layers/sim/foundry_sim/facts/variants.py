"""Precisions in which a checkpoint can be served on a device, each with a note on what it costs in quality."""

from dataclasses import dataclass, replace

from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.devices import Device
from foundry_sim.facts.engines import ENCODERS
from foundry_sim.facts.precision import Precision
from foundry_sim.facts.served_precision import resolve_precision

_AS_SHIPPED = "As published by the model's authors."
# Kurtic et al., arXiv:2411.02355 (500,000 evaluations of Llama 3.1): fp8 is lossless within error, int4 loses little;
# NVIDIA's NVFP4 model cards report within one point of fp8.
_NOTES = {
    "fp8": "Quantised to fp8: usually within 0.5 points of 16 bit on public benchmarks; check your own evaluation.",
    "int4": "Needs a 4-bit AWQ/GPTQ checkpoint: usually 1 to 3 points below 16 bit, more on small models and code.",
    "nvfp4": "Needs an NVFP4 checkpoint: usually about 1 point below fp8; check your own evaluation.",
}
_SIXTEEN_BIT = {"bf16", "fp16"}
# What each engine can run on each vendor's devices.
_ENGINES = {"nvidia": ("vllm", "sglang", "trtllm"), "amd": ("vllm", "sglang"), "intel": ("vllm",)}
_OLD = {"volta": ("vllm",), "turing": ("vllm",)}


@dataclass(frozen=True, slots=True)
class Variant:
    """``quantise`` is the engine option that quantises while loading; "" when the checkpoint itself is quantised."""

    precision: Precision
    note: str
    quantise: str = ""


def engines_for(architecture: Architecture, device: Device, wanted: list[str]) -> list[str]:
    """Those of the wanted engines that run this kind of model on this device."""
    known = _OLD.get(device.generation, _ENGINES.get(device.vendor, ()))
    if architecture.encoder_blocks:  # none of these servers runs encoder-decoder models
        return []
    serves = known if architecture.task == "generate" else tuple(name for name in known if name in ENCODERS)
    return [engine for engine in wanted if engine in serves]


def variants(architecture: Architecture, device: Device, engine: str, quantised: bool) -> list[Variant]:
    """The shipped precision where the device can run it, then the quantised ones if these are allowed."""
    shipped = _runnable(resolve_precision(architecture, device, engine, {}), device)
    found = [Variant(shipped, _AS_SHIPPED)]
    if not quantised or shipped.weights not in _SIXTEEN_BIT or shipped.moe not in _SIXTEEN_BIT:
        return found
    for name in ("fp8", "int4", "nvfp4"):
        if _supported(name, device, engine):
            precision = resolve_precision(architecture, device, engine, {"weights": name})
            quantise = "fp8" if name == "fp8" and engine in {"vllm", "sglang"} else ""
            found.append(Variant(_runnable(precision, device), _NOTES[name], quantise))
    return found


def _supported(name: str, device: Device, engine: str) -> bool:
    if name == "nvfp4":
        return device.vendor == "nvidia" and device.supports(name)
    if name == "int4":
        return device.vendor == "nvidia" or (device.vendor == "amd" and engine == "vllm")
    return device.supports(name)


def _runnable(precision: Precision, device: Device) -> Precision:
    """Devices without bf16 units run 16-bit checkpoints in fp16."""
    if "bf16" in device.peak_flops:
        return precision

    def half(name: str) -> str:
        return "fp16" if name == "bf16" else name

    return replace(
        precision,
        weights=half(precision.weights),
        activations=half(precision.activations),
        kv=half(precision.kv),
        moe=half(precision.moe),
        attention=half(precision.attention),
    )
