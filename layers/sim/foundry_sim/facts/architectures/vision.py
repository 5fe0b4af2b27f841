"""Parameters of vision towers and their projectors, for the kinds that are known; another kind counts as text only.

Sources: the towers' published modelling code; each counter names its parts in the order of a forward pass.
"""

from collections.abc import Callable, Mapping
from typing import Any

from foundry_sim.facts.architectures.reader import MissingField, Reader


def parameters(top: Reader, text_hidden: int, defaults: Mapping[str, Mapping[str, Any]]) -> int | None:
    """The tower that a multimodal config describes: 0 when there is none, None when there is one of an unknown kind."""
    section = top.section("vision_config")
    if section is None:
        inner = Reader(top.section("thinker_config") or {}).section("vision_config")
        if inner is None:
            return 0
        section = inner
    top_type = top.text("model_type")
    kind = str(section.get("model_type") or top_type)[:80]
    counter = _COUNTERS.get(top_type) or _COUNTERS.get(kind)
    if counter is None:
        return None
    known = defaults.get(kind) or defaults.get(_DEFAULTS.get(top_type, ""), {})
    try:
        return counter(Reader(section, known, "vision_config."), top, text_hidden)
    except MissingField:
        return None


def _blocks(width: int, inner: int, layers: int, *, biased: bool, gated: bool = False, norm_bias: bool = True) -> int:
    """Transformer blocks: four square projections, an MLP and two norms."""
    mlp = (3 if gated else 2) * width * inner
    biases = (4 * width + (2 if gated else 1) * inner + width) if biased else 0
    return layers * (4 * width * width + mlp + biases + (4 if norm_bias else 2) * width)


def _sizes(vision: Reader) -> tuple[int, int, int]:
    """Width, MLP width and layers."""
    width = vision.number("hidden_size", "embed_dim", "vt_hidden_size", low=1)
    inner = vision.number("intermediate_size", "vt_intermediate_size", default=0) or round(
        width * vision.ratio("mlp_ratio", default=4.0)
    )
    return width, inner, vision.number("num_hidden_layers", "depth", "vt_num_hidden_layers", low=1, high=256)


def _patches(vision: Reader, width: int, biased: bool, frames: int = 1) -> int:
    patch = _side(vision, 14, "patch_size", "spatial_patch_size")
    channels = vision.number("in_channels", "num_channels", "in_chans", default=3, low=1, high=64)
    return channels * patch * patch * frames * width + (width if biased else 0)


def _grid(vision: Reader) -> int:
    """Patches of one image."""
    return (_side(vision, 224, "image_size") // _side(vision, 14, "patch_size")) ** 2


def _side(vision: Reader, default: int, *names: str) -> int:
    """Side of a square given as a number or as a pair."""
    value = vision.raw(*names)
    if isinstance(value, list) and value:
        return Reader({names[0]: value[0]}, where="vision_config.").number(names[0], low=1, high=1 << 14)
    return vision.number(*names, default=default, low=1, high=1 << 14)


def qwen3_vl(vision: Reader, top: Reader, text_hidden: int) -> int:
    width, inner, layers = _sizes(vision)
    merged = width * vision.number("spatial_merge_size", default=2, low=1, high=16) ** 2
    out = vision.number("out_hidden_size", default=text_hidden)
    frames = vision.number("temporal_patch_size", default=2, low=1, high=16)
    merger = merged * merged + merged + merged * out + out
    deep = len(vision.items("deepstack_visual_indexes"))
    return (
        _patches(vision, width, True, frames)
        + vision.number("num_position_embeddings", default=2304, high=1 << 20) * width
        + _blocks(width, inner, layers, biased=True)
        + merger + 2 * width
        + deep * (merger + 2 * merged)
    )  # fmt: skip


def qwen2_vl(vision: Reader, top: Reader, text_hidden: int) -> int:
    width = vision.number("embed_dim", default=1280, low=1)
    inner = round(width * vision.ratio("mlp_ratio", default=4.0))
    layers = vision.number("depth", default=32, low=1, high=256)
    merged = width * vision.number("spatial_merge_size", default=2, low=1, high=16) ** 2
    out = vision.number("hidden_size", default=text_hidden)
    merger = 2 * width + merged * merged + merged + merged * out + out
    return _patches(vision, width, False, 2) + _blocks(width, inner, layers, biased=True) + merger


def qwen2_5_vl(vision: Reader, top: Reader, text_hidden: int) -> int:
    width, inner, layers = _sizes(vision)
    merged = width * vision.number("spatial_merge_size", default=2, low=1, high=16) ** 2
    out = vision.number("out_hidden_size", default=text_hidden)
    merger = width + merged * merged + merged + merged * out + out
    blocks = _blocks(width, inner, layers, biased=True, gated=True, norm_bias=False)
    return _patches(vision, width, False, 2) + blocks + merger


def siglip(vision: Reader, top: Reader, text_hidden: int) -> int:
    """SigLIP with Gemma 3's projector (one matrix and a norm); the pooling head only where the config keeps it."""
    width, inner, layers = _sizes(vision)
    tower = _patches(vision, width, True) + _grid(vision) * width + _blocks(width, inner, layers, biased=True)
    head = _blocks(width, inner, 1, biased=True) - width if vision.flag("vision_use_head", default=True) else 0
    return tower + 2 * width + head + width * text_hidden + width


def clip(vision: Reader, top: Reader, text_hidden: int) -> int:
    """CLIP with LLaVA's two-layer projector."""
    width, inner, layers = _sizes(vision)
    embeddings = _patches(vision, width, False) + (_grid(vision) + 1) * width + width
    projector = width * text_hidden + text_hidden + text_hidden * text_hidden + text_hidden
    return embeddings + 4 * width + _blocks(width, inner, layers, biased=True) + projector


def llama4(vision: Reader, top: Reader, text_hidden: int) -> int:
    width, inner, layers = _sizes(vision)
    into = vision.number("projector_input_dim", default=4096, low=1)
    out = vision.number("projector_output_dim", default=4096, low=1)
    final = vision.number("vision_output_dim", default=out, low=1)
    adapter = inner * into + out * out
    embeddings = _patches(vision, width, False) + width + (_grid(vision) + 1) * width
    return embeddings + 4 * width + _blocks(width, inner, layers, biased=True) + adapter + final * text_hidden


def pixtral(vision: Reader, top: Reader, text_hidden: int) -> int:
    """Pixtral's tower with LLaVA's projector, or Mistral 3's (norm, patch merger, no bias)."""
    width, inner, layers = _sizes(vision)
    blocks = _blocks(width, inner, layers, biased=False, gated=True, norm_bias=False)
    tower = _patches(vision, width, False) + width + blocks
    biased = top.flag("multimodal_projector_bias", default=top.text("model_type") != "mistral3")
    projector = width * text_hidden + text_hidden * text_hidden + (2 * text_hidden if biased else 0)
    if top.text("model_type") != "mistral3":
        return tower + projector
    merge = top.number("spatial_merge_size", default=2, low=1, high=16)
    return tower + projector + width + width * merge**2 * width


def mllama(vision: Reader, top: Reader, text_hidden: int) -> int:
    """Llama 3.2 Vision: local and gated global layers, tile and aspect-ratio embeddings."""
    width, inner, layers = _sizes(vision)
    gated_layers = vision.number("num_global_layers", default=8, high=256)
    tiles = vision.number("max_num_tiles", default=4, low=1, high=64)
    ratios = len(vision.items("supported_aspect_ratios")) or 8
    positions = _grid(vision) + 1
    per_layer = 4 * width * width + 2 * width * inner + inner + width + 4 * width
    aspect = 2 * ((ratios + 1) * tiles * width + 1)
    position = positions * width + (ratios + 1) * tiles * positions * width + 1
    embeddings = _patches(vision, width, False) + width + aspect + position + 4 * width
    out = vision.number("vision_output_dim", default=7680, low=1)
    return embeddings + (layers + gated_layers) * per_layer + 2 * gated_layers + out * text_hidden + text_hidden


def moonvit(vision: Reader, top: Reader, text_hidden: int) -> int:
    width, inner, layers = _sizes(vision)
    rows = vision.number("init_pos_emb_height", default=64, low=1, high=4096)
    columns = vision.number("init_pos_emb_width", default=64, low=1, high=4096)
    merged = 4 * width
    projector = 2 * width + merged * merged + merged + merged * text_hidden + text_hidden
    tower = _patches(vision, width, True) + rows * columns * width + 2 * width
    return tower + _blocks(width, inner, layers, biased=True) + projector


def internvit(vision: Reader, top: Reader, text_hidden: int) -> int:
    width, inner, layers = _sizes(vision)
    merged = 4 * width
    norms = 2 * width if vision.flag("use_qk_norm", "qk_normalization") else 0
    embeddings = _patches(vision, width, True) + width + (_grid(vision) + 1) * width
    projector = 2 * merged + merged * text_hidden + text_hidden + text_hidden * text_hidden + text_hidden
    return embeddings + layers * (2 * width + norms) + _blocks(width, inner, layers, biased=True) + projector


def gemma4(vision: Reader, top: Reader, text_hidden: int) -> int:
    """Gemma 4's tower: two tables of positions, gated MLPs, four norms and head norms per layer, one projection."""
    width, inner, layers = _sizes(vision)
    heads = vision.number("num_attention_heads", low=1, high=4096)
    head_dim = vision.number("head_dim", default=width // heads, low=1, high=8192)
    blocks = _blocks(width, inner, layers, biased=False, gated=True) + layers * 2 * head_dim
    positions = 2 * vision.number("position_embedding_size", default=10240, high=1 << 20) * width
    standardise = 2 * width if vision.flag("standardize") else 0
    return _patches(vision, width, False) + positions + blocks + standardise + width * text_hidden


_Counter = Callable[[Reader, Reader, int], int]
_COUNTERS: dict[str, _Counter] = {
    "clip_vision_model": clip,
    "gemma3": siglip,
    "gemma4": gemma4,
    "internvl": internvit,
    "internvl_chat": internvit,
    "kimi_k25": moonvit,
    "llama4": llama4,
    "mllama": mllama,
    "paligemma": siglip,
    "pixtral": pixtral,
    "qwen2_5_omni": qwen2_5_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen2_vl": qwen2_vl,
    "qwen3_5": qwen3_vl,
    "qwen3_5_moe": qwen3_vl,
    "qwen3_vl": qwen3_vl,
    "qwen3_vl_moe": qwen3_vl,
}
# Where a published vision section may leave fields out: the section type whose defaults hold.
_DEFAULTS = {
    "gemma3": "siglip_vision_model",
    "kimi_k25": "kimi_k25_vision",
    "llama4": "llama4_vision_model",
    "mllama": "mllama_vision_model",
    "qwen2_5_vl": "qwen2_5_vl_vision",
    "qwen2_vl": "qwen2_vl_vision",
    "qwen3_vl": "qwen3_vl_vision",
}
