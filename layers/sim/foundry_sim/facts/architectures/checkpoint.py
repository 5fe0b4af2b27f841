"""The precision a checkpoint ships in, from ``quantization_config`` and ``torch_dtype``."""

import re
from collections.abc import Mapping
from typing import Any

from foundry_sim.errors import PrecisionError
from foundry_sim.facts.architectures.reader import Reader
from foundry_sim.facts.precision import Precision, canonical

# Ignore entries that name a whole attention module or its large projections (not its indexer or norms), and those that
# name shared experts or the plain MLP.
_ATTENTION = re.compile(r"(attn|attention)(\.?\*|\.?\*\$|\$|)$|attn\.(q_proj|q_b_proj|qkv_proj|kv_b_proj|o_proj|wq_b)")
_DENSE = re.compile(r"shared_expert|mlp\.(gate_proj|up_proj|down_proj|gate_up_proj)|\(gate\|up")
# Methods that say their weights' format in words, or have one only: AMD's Quark, torchao, quanto, FP-Quant, SGLang's
# w8a8_*, ModelOpt's mixtures, EETQ, BitNet's ternary weights. The first that is found counts.
_WORDS = (
    (re.compile(r"nvfp4|nvf4"), "nvfp4"),
    (re.compile(r"mxfp4|fp4"), "mxfp4"),
    (re.compile(r"mxfp8"), "mxfp8"),
    (re.compile(r"fp8|float8|e4m3"), "fp8"),
    (re.compile(r"int8|eetq|w8a"), "int8"),
    (re.compile(r"int4|w4a|awq"), "int4"),
    (re.compile(r"int2|bitnet|aqlm"), "int2"),
)
_WHOLE_STEP = re.compile(r"w8a8|dynamic_?activation|fp4")  # formats that the matrix units take on both sides


def precision(top: Reader, text: Reader) -> Precision:
    """Formats as shipped: 16-bit where nothing says otherwise."""
    base = _base(top, text)
    names = "quantization_config", "compression_config"
    section = top.section(*names) or text.section(*names)
    if not section:
        return Precision(base, base, base)
    quant = Reader(section, where="quantization_config.")
    weights, activations = _formats(quant, base)
    lists = "ignore", "modules_to_not_convert", "exclude_modules", "ignored_layers", "exclude"
    ignored = [str(item) for item in quant.items(*lists)]
    experts = weights if text.text("expert_dtype") not in {"fp4", "mxfp4"} else "mxfp4"
    attention = base if _excludes(ignored, _ATTENTION) else weights
    experts_only = quant.text("quant_method") == "mxfp4" and attention == base  # as OpenAI ships it
    dense = base if _excludes(ignored, _DENSE) or experts_only else weights
    return Precision(dense, activations, _cache(quant, base), experts, attention)


def _base(top: Reader, text: Reader) -> str:
    name = text.text("dtype", "torch_dtype", default=top.text("dtype", "torch_dtype", default="bfloat16"))
    try:
        found = canonical(name)
    except PrecisionError:
        return "bf16"
    return "bf16" if found == "fp32" else found  # engines load fp32 checkpoints in 16 bit


def _formats(quant: Reader, base: str) -> tuple[str, str]:
    """Weight and activation formats of the quantised matrices."""
    method = quant.text("quant_method").lower()
    algorithm = _algorithm(quant)
    if "fp4" in algorithm:
        return "nvfp4", base if "a16" in algorithm else "nvfp4"
    if method in {"fp8", "fbgemm_fp8"} or "fp8" in algorithm:
        return "fp8", "fp8"
    if method == "mxfp4":
        return "mxfp4", base
    groups = quant.section("config_groups")
    if groups:
        return _compressed_tensors(groups, base)
    if quant.flag("load_in_4bit"):
        return "nf4", base
    if quant.flag("load_in_8bit"):
        return "int8", "int8"
    return _by_bits(quant, method, base) or _by_words(quant, method, base)


def _nested(quant: Reader, name: str) -> Reader:
    return Reader(quant.section(name) or {}, where=f"quantization_config.{name}.")


def _algorithm(quant: Reader) -> str:
    """ModelOpt's name for it, which some checkpoints keep one level down."""
    return (quant.text("quant_algo") or _nested(quant, "quantization").text("quant_algo")).lower()


def _by_bits(quant: Reader, method: str, base: str) -> tuple[str, str] | None:
    """Weights of so many bits, which are made wider before they are used."""
    hqq = _nested(_nested(quant, "quant_config"), "weight_quant_params")
    usual = 4 if method in {"awq", "gptq"} else 0
    bits = quant.number("bits", "w_bit", "num_bits", default=hqq.number("nbits", default=usual, high=32), high=32)
    return ({2: "int2", 3: "int3", 4: "int4", 8: "int8"}.get(bits, base), base) if bits else None


def _by_words(quant: Reader, method: str, base: str) -> tuple[str, str]:
    """Of methods that name a format instead of bits. One that says nothing known is refused: taken for 16 bits it
    would need up to eight times its memory."""
    scheme = quant.section("global_quant_config") or {}
    told = [quant.raw(name) for name in ("quant_type", "weights", "forward_dtype", "quantized_layers")]
    words = " ".join([method, _algorithm(quant), *map(str, told), str(scheme.get("weight"))]).lower()
    weights = next((name for pattern, name in _WORDS if pattern.search(words)), None)
    if weights is None:
        complaint = f"{method[:40]!r} names no format known here; take quantization_config out and name it as precision"
        raise quant.fail("quant_method", complaint)
    both = scheme.get("input_tensors") or _WHOLE_STEP.search(words)
    return weights, weights if both else base


def _compressed_tensors(groups: Mapping[str, Any], base: str) -> tuple[str, str]:
    """The first group's scheme; groups beyond it differ in layers, not in format, in published checkpoints."""
    first = next((group for group in groups.values() if isinstance(group, Mapping)), {})
    weights = _scheme(first.get("weights"), base)
    return weights, _scheme(first.get("input_activations"), base)


def _scheme(scheme: Any, base: str) -> str:
    if not isinstance(scheme, Mapping):
        return base
    bits, kind, group = scheme.get("num_bits"), scheme.get("type"), scheme.get("group_size")
    if bits == 8:
        return "fp8" if kind == "float" else "int8"
    if bits == 4:
        return ("nvfp4" if group == 16 else "mxfp4") if kind == "float" else "int4"
    return base


def _cache(quant: Reader, base: str) -> str:
    name = quant.raw("kv_cache_quant_algo", "kv_cache_scheme")
    if isinstance(name, Mapping):
        return _scheme(name, base)
    named = name or _nested(quant, "quantization").raw("kv_cache_quant_algo") or quant.raw("kv_cache_quant_config")
    return "fp8" if "fp8" in str(named).lower() else base


def _excludes(ignored: list[str], pattern: re.Pattern[str]) -> bool:
    """Whether the ignore list names these matrices everywhere: by a wildcard, or layer after layer."""
    hits = [item for item in ignored if pattern.search(item)]
    return len(hits) > 8 or any("*" in item for item in hits)
