"""Families whose layers do not follow the common pattern; each function returns the layers of a whole model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from foundry_sim.facts.architecture import NO_FEED_FORWARD, NO_MIXER, FeedForward, Layer, Mixer
from foundry_sim.facts.architectures import feedforward, mixers, recurrent
from foundry_sim.facts.architectures.families import Family
from foundry_sim.facts.architectures.kinds import mixer_kinds
from foundry_sim.facts.architectures.reader import LAYERS_MAX, Reader

_NEMOTRON_CHARS = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}
_NEMOTRON_NAMES = {"linear_attention": "mamba", "full_attention": "attention"}


def nemotron_h(text: Reader, family: Family) -> tuple[Layer, ...]:
    """Nemotron-H: each layer is one of Mamba 2, attention, MLP or mixture of experts, with one norm."""
    pattern = text.items("layers_block_type") or list(text.text("hybrid_override_pattern"))
    if not pattern or len(pattern) > LAYERS_MAX:
        raise text.fail("hybrid_override_pattern", f"must name 1 to {LAYERS_MAX} layers")
    hidden = mixers.hidden_size(text)
    made = {
        name: _nemotron_layer(text, family, name, hidden) for name in {_nemotron_name(text, item) for item in pattern}
    }
    return tuple(made[_nemotron_name(text, item)] for item in pattern)


def _nemotron_name(text: Reader, item: Any) -> str:
    name = _NEMOTRON_CHARS.get(str(item), _NEMOTRON_NAMES.get(str(item), str(item)))
    if name not in {"mamba", "moe", "attention", "mlp"}:
        raise text.fail("hybrid_override_pattern", f"has the unknown layer {str(item)[:20]!r}")
    return name


def _nemotron_layer(text: Reader, family: Family, name: str, hidden: int) -> Layer:
    if name == "mamba":
        return Layer(recurrent.state_space_duality(text), NO_FEED_FORWARD, hidden)
    if name == "attention":
        return Layer(mixers.attention(text, family, "full"), NO_FEED_FORWARD, hidden)
    if name == "moe":
        return Layer(NO_MIXER, feedforward.mixture(text, family), hidden)
    return Layer(NO_MIXER, feedforward.dense(text, family, feedforward.intermediate_size(text, hidden)), hidden)


def nemotron_nas(text: Reader, family: Family) -> tuple[Layer, ...]:
    """Puzzle models (Llama-Nemotron): ``block_configs`` gives each layer its own attention and MLP, or none."""
    blocks = text.items("block_configs")
    if len(blocks) != text.number("num_hidden_layers", low=1, high=LAYERS_MAX):
        raise text.fail("block_configs", "must have one entry per layer")
    return tuple(_nas_layer(text, family, block) for block in blocks)


def _nas_layer(text: Reader, family: Family, block: Any) -> Layer:
    if not isinstance(block, Mapping):
        raise text.fail("block_configs", "must hold objects")
    reader = Reader(block, where="block_configs.")
    hidden = mixers.hidden_size(text)
    mixer = _nas_mixer(text, family, Reader(reader.section("attention") or {}, where="block_configs.attention."))
    mlp = _nas_mlp(text, family, Reader(reader.section("ffn") or {}, where="block_configs.ffn."))
    return Layer(mixer, mlp, hidden * ((mixer.kind != "none") + (mlp.kind != "none")))


def _nas_mixer(text: Reader, family: Family, attention: Reader) -> Mixer:
    hidden = mixers.hidden_size(text)
    if attention.flag("no_op"):
        return NO_MIXER
    if attention.flag("replace_with_linear"):
        return Mixer("none", projection_parameters=hidden * hidden)
    heads = text.number("num_attention_heads", low=1, high=4096)
    group = attention.number("n_heads_in_group", default=0)
    kv_heads = heads // group if group else attention.number("num_key_value_heads", low=1, high=heads)
    head_dim = text.number("head_dim", default=hidden // heads, low=1, high=8192)
    return mixers.attention(text, family, "full", heads=(heads, kv_heads, head_dim))


def _nas_mlp(text: Reader, family: Family, ffn: Reader) -> FeedForward:
    hidden = mixers.hidden_size(text)
    if ffn.flag("no_op"):
        return NO_FEED_FORWARD
    if ffn.flag("replace_with_linear"):
        return FeedForward("dense", dense_parameters=hidden * hidden, intermediate=hidden)
    if ffn.has("intermediate_size"):
        return feedforward.dense(text, family, ffn.number("intermediate_size", low=1, high=1 << 22))
    width = int(2 * ffn.ratio("ffn_mult", default=4.0) * hidden / 3)
    return feedforward.dense(text, family, max(256, -(-width // 256) * 256))


def gemma4(text: Reader, family: Family) -> tuple[Layer, ...]:
    """Gemma 4 and 3n: wide heads in full layers, late layers that reuse K/V, per-layer inputs, experts beside MLP."""
    layers = text.number("num_hidden_layers", low=1, high=LAYERS_MAX)
    model_type = "gemma3n_text" if text.has("laurel_rank") else "gemma4_text"
    kinds = mixer_kinds(text, model_type, layers)
    first_shared = layers - text.number("num_kv_shared_layers", default=0, high=layers)
    return tuple(
        _gemma_layer(text, family, kinds[index] == "full", index, index >= first_shared > 0) for index in range(layers)
    )


def _gemma_layer(text: Reader, family: Family, full: bool, index: int, shared: bool) -> Layer:
    hidden = mixers.hidden_size(text)
    heads, kv_heads, head_dim = mixers.head_counts(text)
    merged = full and text.flag("attention_k_eq_v")
    if full:
        head_dim = text.number(
            "global_head_dim", default=head_dim if text.has("laurel_rank") else 512, low=1, high=8192
        )
    if merged:
        kv_heads = text.number("num_global_key_value_heads", default=kv_heads, low=1, high=heads)
    laurel = text.number("laurel_rank", default=0)
    mixer = mixers.attention(
        text, family, "full" if full else "sliding", None if full else mixers.window_of(text),
        heads=(heads, kv_heads, head_dim), shares_cache=shared, one_projection=merged,
    )  # fmt: skip
    if shared:
        mixer = replace(mixer, kv_elements_per_token=0)
    mlp = _gemma_mlp(text, family, index, shared)
    streams = text.number("altup_num_inputs", default=0, high=64) if laurel else 0
    altup = streams * streams + streams**3 + hidden * streams + 2 * hidden if laurel else 0
    inputs = text.number("hidden_size_per_layer_input", default=0)
    extra = altup + (2 * hidden * laurel + hidden if laurel else 0) + (2 * hidden * inputs + hidden if inputs else 0)
    return Layer(mixer, mlp, norm_parameters=4 * hidden + extra + (3 * hidden if mlp.kind == "moe" else 0))


def _gemma_mlp(text: Reader, family: Family, index: int, shared: bool) -> FeedForward:
    hidden = mixers.hidden_size(text)
    widths = text.raw("intermediate_size")
    width = (
        Reader({"intermediate_size": widths[min(index, len(widths) - 1)]}).number(
            "intermediate_size", low=1, high=1 << 22
        )
        if isinstance(widths, list) and widths
        else text.number("intermediate_size", low=1, high=1 << 22)
    )
    dense = feedforward.dense(text, family, width * (2 if shared and text.flag("use_double_wide_mlp") else 1))
    if not text.flag("enable_moe_block"):
        return dense
    routed = feedforward.mixture(text, family)
    own = routed.router_parameters + hidden + routed.experts
    return replace(routed, dense_parameters=dense.dense_parameters, router_parameters=own, intermediate=width)


def longcat(text: Reader, family: Family) -> tuple[Layer, ...]:
    """LongCat-Flash: two attentions and two MLPs around one mixture of experts per layer."""
    hidden = mixers.hidden_size(text)
    layers = text.number("num_layers", "num_hidden_layers", low=1, high=LAYERS_MAX)
    one = mixers.latent_attention(text, family)
    two = replace(
        one,
        projection_parameters=2 * one.projection_parameters,
        replicated_parameters=2 * one.replicated_parameters,
        other_parameters=2 * one.other_parameters,
        kv_elements_per_token=2 * one.kv_elements_per_token,
    )
    width = text.number("ffn_hidden_size", low=1, high=1 << 22)
    mlp = feedforward.mlp_parameters(hidden, width, True)
    moe = replace(feedforward.mixture(text, family), dense_parameters=2 * mlp, intermediate=width)
    return (Layer(two, moe, 4 * hidden),) * layers


def deepseek_v4(text: Reader, family: Family) -> tuple[Layer, ...]:
    """DeepSeek-V4: one shared K/V head, compressed by 4 (with an indexer) or 128, beside a short window."""
    layers = text.number("num_hidden_layers", low=1, high=LAYERS_MAX)
    hidden, streams = mixers.hidden_size(text), text.number("hc_mult", default=4, high=64)
    ratios = _compression(text, layers)
    widths = (2 + streams) * streams
    connections = 2 * (widths * streams * hidden + widths + 3)
    moe = feedforward.mixture(text, family)
    return tuple(Layer(_compressed_attention(text, ratio), moe, 2 * hidden + connections) for ratio in ratios)


def _compression(text: Reader, layers: int) -> list[int]:
    if text.has("compress_ratios"):
        found = text.integers("compress_ratios")[:layers]
        if len(found) < layers or any(ratio not in (0, 4, 128) for ratio in found):
            raise text.fail("compress_ratios", "must hold 0, 4 or 128 for each layer")
        return found
    kinds = text.per_layer(layers, "layer_types")
    named = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
    if kinds:
        return [named.get(kind, 0) for kind in kinds]
    return [128 if index < 2 or index % 2 else 4 for index in range(layers)]


def _compressed_attention(text: Reader, ratio: int) -> Mixer:
    hidden, heads = mixers.hidden_size(text), text.number("num_attention_heads", low=1, high=4096)
    dim, rank = text.number("head_dim", low=1, high=8192), text.number("q_lora_rank", low=1)
    groups, out_rank = text.number("o_groups", low=1, high=4096), text.number("o_lora_rank", low=1)
    shared = hidden * rank + hidden * dim
    split = rank * heads * dim + heads * dim * out_rank + groups * out_rank * hidden
    index_dim, index_heads = text.number("index_head_dim", default=0), text.number("index_n_heads", default=0)
    series = 2 if ratio == 4 else 1
    compressor = 2 * hidden * series * dim if ratio else 0
    other = rank + dim + heads + (ratio * series * dim + dim if ratio else 0)
    if ratio == 4:
        compressor += 4 * hidden * index_dim + rank * index_heads * index_dim + hidden * index_heads
        other += ratio * 2 * index_dim + index_dim
    window = text.number("sliding_window", default=128, high=1 << 20)
    return Mixer(
        "mla",
        projection_parameters=shared + split + compressor,
        replicated_parameters=shared + compressor,
        other_parameters=other,
        heads=heads,
        kv_heads=1,
        head_dim=dim,
        v_head_dim=dim,
        kv_elements_per_token=dim // ratio if ratio else 0,
        index_bytes_per_token=(index_dim + 4) // 4 if ratio == 4 else 0,
        state_bytes=window * dim * 2,
    )


def t5(text: Reader, family: Family) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """T5: (encoder layers, decoder layers); the decoder also caches K/V of the encoder's output."""
    hidden = mixers.hidden_size(text)
    heads, inner = text.number("num_heads", low=1, high=4096), text.number("d_kv", low=1, high=8192)
    width = heads * inner
    gated = "gated" in text.text("feed_forward_proj", default="relu") or text.flag("is_gated_act")
    mlp = feedforward.dense(text, replace(family, gated=gated), text.number("d_ff", low=1, high=1 << 22))
    attend = 4 * hidden * width
    encoder = Mixer(
        "encoder", projection_parameters=attend, heads=heads, kv_heads=heads, head_dim=inner, v_head_dim=inner
    )
    decoder = replace(
        encoder,
        kind="full",
        projection_parameters=2 * attend,
        kv_elements_per_token=2 * width,
        cross_kv_elements_per_token=2 * width,
    )
    count = text.number("num_layers", "num_hidden_layers", low=1, high=LAYERS_MAX)
    decoders = text.number("num_decoder_layers", default=count, low=1, high=LAYERS_MAX)
    return (Layer(encoder, mlp, 2 * hidden),) * count, (Layer(decoder, mlp, 3 * hidden),) * decoders
