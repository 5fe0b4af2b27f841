"""Config in, Architecture out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from foundry_sim.errors import ArchitectureError
from foundry_sim.facts.architecture import Architecture, FeedForward, Layer, Mixer
from foundry_sim.facts.architectures import checkpoint, ends, feedforward, mixers, recurrent, special, vision
from foundry_sim.facts.architectures.families import FAMILIES, Family, family_name, family_of
from foundry_sim.facts.architectures.kinds import mixer_kinds, moe_flags
from foundry_sim.facts.architectures.reader import LAYERS_MAX, POSITIONS_MAX, VOCAB_MAX, Reader

TEXT_SECTIONS = ("text_config", "llm_config", "language_config", "thinker_config")
# A config that describes the language model itself must state these; one nested in a multimodal config may lean on its
# class's defaults, as published ones do.
ESSENTIAL = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size", "d_model",
             "num_layers", "num_heads", "d_ff", "d_kv", "n_embd", "n_layer", "n_head")  # fmt: skip
_DEFAULTS = Path(__file__).parents[2] / "data" / "family_defaults.json"
_SPECIAL = {
    "deepseek_v4": special.deepseek_v4,
    "gemma3n_text": special.gemma4,
    "gemma4_text": special.gemma4,
    "longcat_flash": special.longcat,
    "nemotron-nas": special.nemotron_nas,
    "nemotron_h": special.nemotron_h,
}


@lru_cache(maxsize=1)
def _defaults() -> dict[str, dict[str, Any]]:
    value: dict[str, dict[str, Any]] = json.loads(_DEFAULTS.read_bytes())
    return value


def build(config: Mapping[str, Any], name: str = "") -> Architecture:
    """The architecture that a config describes; ArchitectureError names the offending field."""
    if not isinstance(config, Mapping):
        raise ArchitectureError("config must be a JSON object")
    top, text = _readers(config)
    model_type = text.text("model_type", default=top.text("model_type", default="llama"))
    family = family_of(model_type)
    if family_name(model_type) == "t5":
        encoder, blocks = special.t5(text, family)
        return _assemble(name, model_type, top, text, family, blocks, encoder)
    return _assemble(name, model_type, top, text, family, _blocks(text, family, model_type), ())


def _readers(config: Mapping[str, Any]) -> tuple[Reader, Reader]:
    top_type = str(config.get("model_type", ""))[:80]
    top = Reader(config)
    section = top.section(*TEXT_SECTIONS)
    if section and isinstance(section.get("text_config"), Mapping):
        section = section["text_config"]
    if section is None:
        known = _defaults().get(top_type, _defaults().get(family_name(top_type), {}))
        rest = {key: value for key, value in known.items() if key not in ESSENTIAL}
        return top, Reader(_flattened(config), rest)
    kind = str(section.get("model_type", ""))[:80] or f"{top_type}_text"
    return top, Reader(section, _defaults().get(kind, _defaults().get(family_name(kind), {})), "text_config.")


def _flattened(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """DBRX and MPT keep attention and MLP facts in sections of their own."""
    attention, mlp = config.get("attn_config"), config.get("ffn_config")
    if not isinstance(attention, Mapping) and not isinstance(mlp, Mapping):
        return config
    found = {**config, **(mlp if isinstance(mlp, Mapping) else {})}
    if isinstance(attention, Mapping) and "kv_n_heads" in attention:
        found["num_key_value_heads"] = attention["kv_n_heads"]
    if "expansion_ratio" in config and isinstance(config.get("d_model"), int):
        found.setdefault("ffn_hidden_size", config["d_model"] * config["expansion_ratio"])
    found["model_type"] = config.get("model_type", "")
    return found


def _blocks(text: Reader, family: Family, model_type: str) -> tuple[Layer, ...]:
    key = family_name(model_type)
    if text.has("block_configs"):
        return special.nemotron_nas(text, family)
    if key in _SPECIAL:
        return _SPECIAL[key](text, family)
    layers = text.number("num_hidden_layers", "n_layer", "n_layers", "num_layers", low=1, high=LAYERS_MAX)
    kinds, routed = mixer_kinds(text, key, layers), moe_flags(text, key, layers)
    heads = text.per_layer(layers, "num_key_value_heads_per_layer")
    crossed = set(text.integers("cross_attention_layers"))
    indexers = text.per_layer(layers, "indexer_types")
    made: dict[_Spot, Layer] = {}
    spots = [
        _Spot(
            "cross" if i in crossed else kinds[i],
            routed[i],
            heads[i] if heads else None,
            indexed=not indexers or indexers[i] != "shared",
        )
        for i in range(layers)
    ]
    for spot in spots:
        if spot not in made:
            made[spot] = _layer(text, family, key, spot)
    return tuple(made[spot] for spot in spots)


@dataclass(frozen=True, slots=True)
class _Spot:
    """What distinguishes one layer from another within a common model."""

    kind: str
    routed: bool
    kv_heads: Any
    indexed: bool


def _layer(text: Reader, family: Family, key: str, spot: _Spot) -> Layer:
    if key in {"mamba", "falcon_mamba", "mamba2"}:
        feed_forward = FeedForward("none")
    else:
        feed_forward = feedforward.mixture(text, family) if spot.routed else _dense(text, family, key)
    mixer = _mixer(text, family, key, spot)
    norms = ends.norms_per_layer(text, family, key) * ends.norm_width(family, mixers.hidden_size(text))
    return Layer(mixer, feed_forward, norms)


def _dense(text: Reader, family: Family, key: str) -> FeedForward:
    hidden = mixers.hidden_size(text)
    if key == "granitemoehybrid":  # its dense variants keep the width under the shared MLP's name
        return feedforward.dense(text, family, text.number("shared_intermediate_size", "intermediate_size", low=1))
    return feedforward.dense(text, family, feedforward.intermediate_size(text, hidden))


def _cross(text: Reader, family: Family) -> Mixer:
    """A layer that attends to image tokens only (Llama 3.2 Vision): no cache of its own for text."""
    base = mixers.attention(text, family, "full")
    extra = 2 * base.head_dim + 2
    return Mixer("none", base.projection_parameters, base.key_value_parameters, 0, extra, kv_heads=base.kv_heads)


def _mixer(text: Reader, family: Family, key: str, spot: _Spot) -> Mixer:
    kind = spot.kind
    if kind == "cross":
        return _cross(text, family)
    if kind == "linear":
        return _linear(text, key)
    if kind == "conv":
        return recurrent.short_convolution(text)
    if kind == "ssm":
        return recurrent.selective_scan(text) if _is_mamba1(text, key) else recurrent.state_space_duality(text)
    if text.has("kv_lora_rank"):
        return mixers.latent_attention(text, family, spot.indexed)
    if kind == "hybrid":
        gate_norm = text.flag("mamba_rms_norm")
        return recurrent.both(mixers.attention(text, family, "full"), recurrent.state_space_duality(text, gate_norm))
    return _windowed(text, family, key, kind, spot.kv_heads)


def _is_mamba1(text: Reader, key: str) -> bool:
    return key in {"jamba", "mamba", "falcon_mamba"} or not text.has("mamba_n_heads", "mamba_num_heads", "num_heads")


def _linear(text: Reader, key: str) -> Mixer:
    if key == "kimi_linear":
        return recurrent.kimi_delta(text)
    return recurrent.gated_delta(text) if text.has("linear_num_value_heads") else recurrent.lightning(text)


def _windowed(text: Reader, family: Family, key: str, kind: str, kv_heads: Any) -> Mixer:
    if family.encoder:
        return mixers.attention(text, family, "encoder")
    heads = mixers.head_counts(text)
    if kv_heads is not None:
        heads = (heads[0], Reader({"num_key_value_heads_per_layer": kv_heads}).number(
            "num_key_value_heads_per_layer", low=1, high=heads[0]), heads[2])  # fmt: skip
    if kind == "chunked":
        window = text.number("attention_chunk_size", default=0, high=POSITIONS_MAX)
        return mixers.attention(text, family, "chunked" if window else "full", window or None, heads=heads)
    span = mixers.window_of(text) if kind == "sliding" else None
    if span and key == "mimo_v2_flash":
        heads = (heads[0], text.number("swa_num_key_value_heads", default=2 * heads[1], low=1, high=heads[0]), heads[2])
    return mixers.attention(text, family, "sliding" if span else "full", span, heads=heads)


def _assemble(
    name: str,
    model_type: str,
    top: Reader,
    text: Reader,
    family: Family,
    blocks: tuple[Layer, ...],
    encoder: tuple[Layer, ...],
) -> Architecture:
    hidden = mixers.hidden_size(text)
    tower = vision.parameters(top, hidden, _defaults())
    vocab = text.number("vocab_size", "padded_vocab_size", low=1, high=VOCAB_MAX)
    tied = ends.tied(top, text, family)
    attending = next((block.mixer for block in blocks if block.mixer.heads), blocks[0].mixer)
    moe = next((block.feed_forward for block in blocks if block.feed_forward.kind == "moe"), None)
    widths = [block.feed_forward.intermediate for block in blocks if block.feed_forward.intermediate]
    windows = [block.mixer.window for block in blocks if block.mixer.window]
    task = ends.task_of(top, family, name)
    mtp_layers = text.number("num_nextn_predict_layers", "mtp_num_hidden_layers", default=0, high=64)
    return Architecture(
        name=name or model_type,
        model_type=model_type,
        task=task,
        layers=len(blocks),
        hidden=hidden,
        heads=attending.heads,
        kv_heads=attending.kv_heads,
        head_dim=attending.head_dim,
        intermediate=max(widths, default=0),
        vocab=vocab,
        tied_embeddings=tied,
        max_position=text.number(
            "max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "max_seq_len", "n_ctx",
            "model_max_length", default=2048, low=1, high=POSITIONS_MAX,
        ),
        blocks=blocks,
        embedding_parameters=ends.embedding_parameters(text, family_name(model_type), vocab, hidden),
        head_parameters=vocab * hidden if task == "generate" and not tied else 0,
        other_parameters=ends.other_parameters(top, text, family, family_name(model_type), vocab, hidden),
        vision_parameters=tower or 0,
        vision_counted=tower is not None,
        family_known=family_name(model_type) in FAMILIES,
        encoder_blocks=encoder,
        mtp_layers=mtp_layers,
        mtp_parameters=mtp_layers * (blocks[-1].parameters + 2 * hidden * hidden + 3 * hidden),
        sliding_window=windows[0] if windows else None,
        q_lora_rank=text.number("q_lora_rank", default=0),
        kv_lora_rank=text.number("kv_lora_rank", default=0),
        qk_nope_head_dim=text.number("qk_nope_head_dim", default=0),
        qk_rope_head_dim=text.number("qk_rope_head_dim", default=0),
        v_head_dim=attending.v_head_dim,
        experts=moe.experts if moe else 0,
        experts_per_token=moe.experts_per_token if moe else 0,
        moe_intermediate=moe.moe_intermediate if moe else 0,
        shared_experts=moe.shared_intermediate // moe.moe_intermediate if moe else 0,
        shared_intermediate=moe.shared_intermediate if moe else 0,
        checkpoint_precision=checkpoint.precision(top, text),
    )  # fmt: skip
