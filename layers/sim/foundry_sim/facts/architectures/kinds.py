"""Which layer does what: the attention pattern and the MoE pattern in the spellings of all families."""

from typing import Any

from foundry_sim.facts.architectures.feedforward import expert_count
from foundry_sim.facts.architectures.reader import Reader

# Families whose config may leave the pattern out: every n-th layer attends to everything, the others slide.
_FULL_EVERY = {
    "afmoe": 4,
    "cohere2": 4,
    "cohere2_moe": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3_text": 6,
    "gemma3n_text": 5,
    "gemma4_text": 6,
    "gpt_oss": 2,
    "olmo3": 4,
}
# Families in which one window, once given, holds for every layer.
_ALL_SLIDE = {"mistral", "mixtral", "phi3", "phi4mm", "phi4_multimodal", "phimoe", "starcoder2", "ministral"}
# Families that are recurrent throughout unless the config lists attention layers.
_ALL_RECURRENT = {"mamba", "mamba2", "falcon_mamba", "bamba", "granitemoehybrid"}
_STATE_SPACE = _ALL_RECURRENT | {"jamba", "falcon_h1"}
_NAMES = {
    "attention": "full",
    "full": "full",
    "full_attention": "full",
    "global": "full",
    "sliding_attention": "sliding",
    "sliding": "sliding",
    "local": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
    "lightning_attention": "linear",
    "linear": "linear",
    "mamba": "ssm",
    "mamba2": "ssm",
    "conv": "conv",
    "hybrid": "hybrid",
    "compressed_sparse_attention": "csa",
    "heavily_compressed_attention": "hca",
}


def mixer_kinds(text: Reader, model_type: str, layers: int) -> list[str]:
    """One of full, sliding, chunked, linear, ssm, conv, hybrid, csa, hca per layer."""
    listed = text.per_layer(layers, "layer_types", "layers_block_type")
    if listed:
        kinds = [_kind(text, value) for value in listed]
        # Newer exports call Mamba layers "linear_attention" too.
        return ["ssm" if kind == "linear" and model_type in _STATE_SPACE else kind for kind in kinds]
    for rule in (_by_indices, _by_flags, _by_period):
        kinds = rule(text, model_type, layers)
        if kinds:
            return kinds
    return ["sliding" if model_type in _ALL_SLIDE else "full"] * layers


def _kind(text: Reader, value: Any) -> str:
    if not isinstance(value, str):
        raise text.fail("layer_types", f"has the entry {value!r:.30}, not a layer type")
    return _NAMES.get(value, "full")


def _by_indices(text: Reader, model_type: str, layers: int) -> list[str]:
    """Lists of the layers that attend fully."""
    linear = text.section("linear_attn_config")
    if linear:
        full = {layer - 1 for layer in Reader(linear, where="linear_attn_config.").integers("full_attn_layers")}
        return ["full" if index in full else "linear" for index in range(layers)]
    for name, other in (("attn_layer_indices", "ssm"), ("full_attn_idxs", "conv")):
        if text.has(name):
            chosen = set(text.integers(name))
            return ["full" if index in chosen else other for index in range(layers)]
    return ["ssm"] * layers if model_type in _ALL_RECURRENT else []


def _by_flags(text: Reader, model_type: str, layers: int) -> list[str]:
    """Lists of 0 and 1, one per layer."""
    for name, kinds in (
        ("hybrid_layer_pattern", ("full", "sliding")),
        ("attn_type_list", ("linear", "full")),
        ("no_rope_layers", ("full", "chunked")),
    ):
        flags = text.per_layer(layers, name)
        if flags:
            return [kinds[1] if flag else kinds[0] for flag in flags]
    return []


def _by_period(text: Reader, model_type: str, layers: int) -> list[str]:
    if text.has("attn_layer_period"):
        period, offset = text.number("attn_layer_period", low=1), text.number("attn_layer_offset", default=0)
        return ["full" if index % period == offset else "ssm" for index in range(layers)]
    if model_type == "falcon_h1":
        return ["hybrid"] * layers
    if text.has("linear_num_value_heads"):
        every = text.number("full_attention_interval", default=4, low=1)
        return _every(layers, every, "linear")
    if model_type == "llama4_text":
        return _every(layers, text.number("no_rope_layer_interval", default=4, low=1), "chunked")
    every = _FULL_EVERY.get(model_type, 0)
    pattern = text.raw("sliding_window_pattern", "global_attn_every_n_layers")
    if isinstance(pattern, str):
        return ["sliding" if pattern[index % len(pattern)] == "L" else "full" for index in range(layers)]
    every = text.number("sliding_window_pattern", "global_attn_every_n_layers", default=every)
    if every and text.has("max_window_layers") and text.flag("use_sliding_window"):
        start = text.number("max_window_layers")
        return ["sliding" if index >= start else "full" for index in range(layers)]
    return _every(layers, every, "sliding") if every else []


def _every(layers: int, every: int, other: str) -> list[str]:
    return ["full" if (index + 1) % every == 0 else other for index in range(layers)]


def moe_flags(text: Reader, model_type: str, layers: int) -> list[bool]:
    """Whether each layer is a mixture of experts."""
    if not expert_count(text):
        return [False] * layers
    listed = text.per_layer(layers, "mlp_layer_types", "decoder_layer_types")
    if listed:
        return [value not in {"dense", "mlp"} for value in listed]
    frequency = text.raw("moe_layer_freq")
    if isinstance(frequency, list) and frequency:
        return [bool(flag) for flag in text.per_layer(layers, "moe_layer_freq")]
    if text.has("moe_layers_enum"):
        chosen = {part.strip() for part in text.text("moe_layers_enum").split(",")}
        return [str(index) in chosen for index in range(layers)]
    return _moe_by_rule(text, model_type, layers)


def _moe_by_rule(text: Reader, model_type: str, layers: int) -> list[bool]:
    if text.has("expert_layer_period"):
        period, offset = text.number("expert_layer_period", low=1), text.number("expert_layer_offset", default=0)
        return [index % period == offset for index in range(layers)]
    if text.has("interleave_moe_layer_step"):
        chosen = set(text.integers("moe_layers"))
        step = text.number("interleave_moe_layer_step", low=1)
        return [index in chosen if chosen else (index + 1) % step == 0 for index in range(layers)]
    first = text.number("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", default=0)
    last = text.raw("moe_layer_end_index")
    end = last + 1 if isinstance(last, int) and last > 0 else layers
    step = text.number("moe_layer_interval", "decoder_sparse_step", "moe_layer_freq", default=1, low=1)
    dense = set(text.integers("mlp_only_layers"))
    aligned = 0 if model_type.startswith("deepseek") else 1
    return [first <= i < end and (i + aligned) % step == 0 and i not in dense for i in range(layers)]
