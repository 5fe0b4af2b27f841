"""What sits before the first layer and after the last: embeddings, positions, norms, heads and poolers."""

from foundry_sim.facts.architecture import Task
from foundry_sim.facts.architectures import mixers
from foundry_sim.facts.architectures.families import Family
from foundry_sim.facts.architectures.reader import POSITIONS_MAX, Reader

# Classes that write text although their names end like those of models that return vectors.
_WRITERS = ("LMHead", "Chat", "Ultravox")
_CLASSIFIER_HEADS = ("SequenceClassification", "TokenClassification", "RewardModel")


def norm_width(family: Family, hidden: int) -> int:
    """Parameters of one norm."""
    return hidden * (int(family.norm_weight) + int(family.norm_bias))


def norms_per_layer(text: Reader, family: Family, key: str) -> int:
    """Falcon's parallel blocks have one or two norms by generation; the rest is the family's number."""
    if key == "falcon":
        if text.flag("new_decoder_architecture"):
            return text.number("num_ln_in_parallel_attn", default=2, low=1, high=2)
        return 1 if text.flag("parallel_attn", default=True) else 2
    if key == "stablelm" and text.flag("use_parallel_residual"):
        return 1
    return family.norms


def tied(top: Reader, text: Reader, family: Family) -> bool:
    """Whether the head reuses the embedding: as the text section says, else the whole config, else the family."""
    for reader in (text, top):
        if reader.states("tie_word_embeddings"):
            return reader.flag("tie_word_embeddings")
    return text.flag("tie_word_embeddings", default=family.tied)


def task_of(top: Reader, family: Family, name: str) -> Task:
    """What the checkpoint's class is for; embedding models published as causal LMs say so only in their name."""
    classes = [str(item) for item in top.items("architectures")]
    if any(mark in item for item in classes for mark in _CLASSIFIER_HEADS):
        return "classify"
    lowered = name.rsplit("/", 1)[-1].lower()
    if "rerank" in lowered:
        return "classify"
    if "embedding" in lowered:
        return "embed"
    if family.encoder or (classes and all(_returns_vectors(item) for item in classes)):
        return "embed"
    return "generate"


def _returns_vectors(name: str) -> bool:
    return name.endswith("Model") and not any(mark in name for mark in _WRITERS)


def embedding_parameters(text: Reader, key: str, vocab: int, hidden: int) -> int:
    """Token tables; Gemma 3n/4 add one small table per layer, Llama 3.2 Vision eight rows for images."""
    rows = vocab + (8 if key == "mllama_text_model" else 0)
    width = text.number("word_embed_proj_dim", "embedding_size", default=hidden, low=1)
    per_layer = text.number("hidden_size_per_layer_input", default=0)
    if not per_layer:
        return rows * width
    layers = text.number("num_hidden_layers", low=1, high=1024)
    small = text.number("vocab_size_per_layer_input", default=vocab, high=1 << 23)
    return rows * width + small * layers * per_layer


def other_parameters(top: Reader, text: Reader, family: Family, key: str, vocab: int, hidden: int) -> int:
    """Final and embedding norms, learned positions, segment embeddings, head bias, pooler or classifier."""
    norm = norm_width(family, hidden)
    total = (norm if family.final_norm else 0) + (norm if family.embedding_norm else 0)
    total += vocab if mixers.bias(text, family.head_bias) else 0
    if family.learned_positions is not None:
        rows = text.number("max_position_embeddings", "n_positions", default=512, high=POSITIONS_MAX)
        total += (rows + family.learned_positions) * hidden
    if family.encoder and key not in {"distilbert", "modernbert", "mpnet"}:
        total += text.number("type_vocab_size", default=0, high=64) * hidden
    if key == "t5":
        total += hidden + 2 * 32 * text.number("num_heads", default=0)
    width = text.number("word_embed_proj_dim", default=hidden, low=1)
    total += 2 * width * hidden if width != hidden else 0
    return total + _task_head(top, family, key, vocab, hidden) + _per_layer_inputs(text, hidden)


def _task_head(top: Reader, family: Family, key: str, vocab: int, hidden: int) -> int:
    """Pooler, classifier or masked-language head of encoder classes."""
    classes = " ".join(str(item) for item in top.items("architectures"))
    square = hidden * hidden + hidden
    labels = len(top.section("id2label") or {"0": "", "1": ""})
    if "SequenceClassification" in classes:
        return (square if family.encoder else 0) + hidden * labels + (labels if family.encoder else 0)
    if not family.encoder:
        return 0
    if "MaskedLM" in classes or "LMHead" in classes or "CausalLM" in classes:
        return square - (hidden if key == "modernbert" else 0) + norm_width(family, hidden) + vocab
    return 0 if key in {"distilbert", "modernbert", "nomic_bert"} else square


def _per_layer_inputs(text: Reader, hidden: int) -> int:
    """Projections that feed Gemma 3n/4's per-layer inputs and 3n's alternating streams."""
    per_layer = text.number("hidden_size_per_layer_input", default=0)
    if not per_layer:
        return 0
    layers = text.number("num_hidden_layers", low=1, high=1024)
    streams = text.number("altup_num_inputs", default=1, low=1, high=64) if text.has("laurel_rank") else 1
    return hidden * layers * per_layer + per_layer + 2 * (streams - 1) * hidden * hidden
