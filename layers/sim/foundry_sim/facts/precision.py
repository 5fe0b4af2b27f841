"""Number formats: bytes per element with their scales, and where each format is used."""

from dataclasses import dataclass
from types import MappingProxyType

from foundry_sim.errors import PrecisionError

# Bytes per element, the format's own scales included. Sources: OCP Microscaling v1.0 (mxfp4: one E8M0 per 32),
# NVIDIA NVFP4 (one E4M3 per 16), AWQ/GPTQ with group 128 (fp16 scale + packed zero point), DeepSeek-V3 fp8
# (one fp32 per 128×128 block), bitsandbytes NF4 with double quantisation (0.127 bit per element).
_BYTES = MappingProxyType(
    {
        "fp32": 4.0,
        "tf32": 4.0,
        "bf16": 2.0,
        "fp16": 2.0,
        "fp8": 1.0 + 4 / (128 * 128),
        "mxfp8": 1.0 + 1 / 32,
        "int8": 1.0 + 2 / 4096,
        "mxfp6": 0.75 + 1 / 32,
        "nvfp4": 0.5 + 1 / 16,
        "mxfp4": 0.5 + 1 / 32,
        "int4": 0.5 + 2 / 128 + 0.5 / 128,
        "nf4": 0.5 + 0.127 / 8,
        "int3": 0.375 + 2 / 128 + 0.5 / 128,
        "int2": 0.25 + 2 / 128 + 0.5 / 128,
    }
)
# Cached keys and values carry per-tensor or per-head scales only: nothing per element.
_CACHE_BYTES = MappingProxyType(
    {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "nvfp4": 0.5 + 1 / 16, "int4": 0.5 + 2 / 64}
)
_ALIASES = MappingProxyType(
    {
        "float32": "fp32",
        "float": "fp32",
        "bfloat16": "bf16",
        "float16": "fp16",
        "half": "fp16",
        "float8": "fp8",
        "fp8_e4m3": "fp8",
        "fp8_e5m2": "fp8",
        "e4m3": "fp8",
        "float8_e4m3fn": "fp8",
        "fp8_block": "fp8",
        "w8a8": "int8",
        "fp4": "nvfp4",
        "e2m1": "nvfp4",
        "w4a16_mxfp4": "mxfp4",
        "w4a16": "int4",
        "awq": "int4",
        "gptq": "int4",
        "bnb4": "nf4",
    }
)


def canonical(name: str) -> str:
    """The format's one name here, for example ``bfloat16`` → ``bf16``; PrecisionError when unknown."""
    key = str(name).strip().lower().removeprefix("torch.")
    key = _ALIASES.get(key, key)
    if key not in _BYTES:
        raise PrecisionError(f"precision '{name}' is unknown; use one of {', '.join(sorted(_BYTES))}")
    return key


def bytes_of(name: str) -> float:
    """Bytes per weight element, quantisation scales included."""
    return _BYTES[canonical(name)]


def cache_bytes_of(name: str) -> float:
    """Bytes per element of the KV cache."""
    key = canonical(name)
    if key not in _CACHE_BYTES:
        raise PrecisionError(f"precision '{name}' cannot hold a KV cache; use one of {', '.join(_CACHE_BYTES)}")
    return _CACHE_BYTES[key]


@dataclass(frozen=True, slots=True)
class Precision:
    """The formats of one configuration: dense weights, activations (the matrix units' input), KV cache, routed
    experts, and attention projections where a checkpoint leaves these unquantised ("" = as ``weights``)."""

    weights: str = "bf16"
    activations: str = "bf16"
    kv: str = "bf16"
    moe: str = ""
    attention: str = ""

    def __post_init__(self) -> None:
        for field, value in (
            ("weights", self.weights),
            ("activations", self.activations),
            ("kv", self.kv),
            ("moe", self.moe or self.weights),
            ("attention", self.attention or self.weights),
        ):
            object.__setattr__(self, field, canonical(value))
        cache_bytes_of(self.kv)

    def label(self) -> str:
        """A short name for people, for example ``fp8`` or ``bf16 + mxfp4 experts, fp8 KV``."""
        parts = [self.weights if self.moe == self.weights else f"{self.weights} + {self.moe} experts"]
        if self.kv not in {self.weights, "bf16", "fp16"}:
            parts.append(f"{self.kv} KV")
        return ", ".join(parts)
