"""Config in, Architecture out."""

from collections.abc import Mapping
from typing import Any

from foundry_sim.architecture import Architecture, FeedForward, Layer, Mixer, MixerKind, Task
from foundry_sim.architectures import checkpoint, feedforward, mixers
from foundry_sim.architectures.families import Family, family_of
from foundry_sim.architectures.reader import LAYERS_MAX, POSITIONS_MAX, VOCAB_MAX, Reader
from foundry_sim.errors import ArchitectureError

TEXT_SECTIONS = ("text_config", "llm_config", "language_config")


def build(config: Mapping[str, Any], name: str = "") -> Architecture:
    """The architecture that a config describes; ArchitectureError names the offending field."""
    if not isinstance(config, Mapping):
        raise ArchitectureError("config must be a JSON object")
    top = Reader(config)
    text = _text_section(top, config)
    model_type = text.text("model_type", default=top.text("model_type", default="llama"))
    family = family_of(model_type)
    layers = text.number("num_hidden_layers", "n_layer", "n_layers", "num_layers", low=1, high=LAYERS_MAX)
    blocks = tuple(_layer(text, family, index, layers) for index in range(layers))
    return _assemble(name, model_type, top, text, family, blocks)


def _text_section(top: Reader, config: Mapping[str, Any]) -> Reader:
    section = top.section(*TEXT_SECTIONS)
    return Reader(section, where="text_config.") if section else Reader(config)


def _layer(text: Reader, family: Family, index: int, layers: int) -> Layer:
    mixer = _mixer(text, family, index, layers)
    feed_forward = _feed_forward(text, family, index, layers)
    hidden = mixers.hidden_size(text)
    norm = _norm_width(family, hidden)
    return Layer(mixer, feed_forward, family.norms * norm)


def _norm_width(family: Family, hidden: int) -> int:
    return hidden * (int(family.norm_weight) + int(family.norm_bias))


def _mixer(text: Reader, family: Family, index: int, layers: int) -> Mixer:
    if text.has("kv_lora_rank"):
        return mixers.latent_attention(text, family)
    kind = _attention_kind(text, family, index, layers)
    window = mixers.window_of(text) if kind == "sliding" else None
    return mixers.attention(text, family, kind, window)


def _attention_kind(text: Reader, family: Family, index: int, layers: int) -> MixerKind:
    if family.encoder:
        return "encoder"
    kinds = text.per_layer(layers, "layer_types")
    if kinds:
        return "sliding" if kinds[index] == "sliding_attention" and mixers.window_of(text) else "full"
    return "full"


def _feed_forward(text: Reader, family: Family, index: int, layers: int) -> FeedForward:
    if feedforward.expert_count(text) and index >= text.number("first_k_dense_replace", default=0):
        return feedforward.mixture(text, family)
    return feedforward.dense(text, family, feedforward.intermediate_size(text, mixers.hidden_size(text)))


def _assemble(
    name: str, model_type: str, top: Reader, text: Reader, family: Family, blocks: tuple[Layer, ...]
) -> Architecture:
    hidden = mixers.hidden_size(text)
    vocab = text.number("vocab_size", "padded_vocab_size", low=1, high=VOCAB_MAX)
    tied = text.flag("tie_word_embeddings", default=top.flag("tie_word_embeddings", default=family.tied))
    mixer = next((block.mixer for block in blocks if block.mixer.heads), blocks[0].mixer)
    moe = next((block.feed_forward for block in blocks if block.feed_forward.kind == "moe"), None)
    mlp = next((block.feed_forward for block in blocks if block.feed_forward.kind == "dense"), None)
    windows = [block.mixer.window for block in blocks if block.mixer.window]
    task = _task(top, family)
    return Architecture(
        name=name or model_type,
        model_type=model_type,
        task=task,
        layers=len(blocks),
        hidden=hidden,
        heads=mixer.heads,
        kv_heads=mixer.kv_heads,
        head_dim=mixer.head_dim,
        intermediate=mlp.intermediate if mlp else 0,
        vocab=vocab,
        tied_embeddings=tied,
        max_position=text.number(
            "max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "max_seq_len", "n_ctx",
            default=2048, low=1, high=POSITIONS_MAX,
        ),
        blocks=blocks,
        embedding_parameters=vocab * hidden,
        head_parameters=vocab * hidden if task == "generate" and not tied else 0,
        other_parameters=_norm_width(family, hidden) if family.final_norm else 0,
        sliding_window=windows[0] if windows else None,
        q_lora_rank=text.number("q_lora_rank", default=0),
        kv_lora_rank=text.number("kv_lora_rank", default=0),
        qk_nope_head_dim=text.number("qk_nope_head_dim", default=0),
        qk_rope_head_dim=text.number("qk_rope_head_dim", default=0),
        v_head_dim=mixer.v_head_dim,
        experts=moe.experts if moe else 0,
        experts_per_token=moe.experts_per_token if moe else 0,
        moe_intermediate=moe.moe_intermediate if moe else 0,
        shared_experts=text.number("n_shared_experts", "num_shared_experts", default=0),
        shared_intermediate=moe.shared_intermediate if moe else 0,
        mtp_layers=text.number("num_nextn_predict_layers", "mtp_num_hidden_layers", default=0, high=64),
        checkpoint_precision=checkpoint.precision(top, text),
    )  # fmt: skip


def _task(top: Reader, family: Family) -> Task:
    classes = [str(item) for item in top.items("architectures")]
    if any("Classification" in item for item in classes):
        return "classify"
    if family.encoder or (classes and all(item.endswith("Model") for item in classes)):
        return "embed"
    return "generate"
