"""Parameter, cache and state counts of attention, from config fields."""

from foundry_sim.facts.architecture import NO_MIXER, Mixer, MixerKind
from foundry_sim.facts.architectures.families import Family
from foundry_sim.facts.architectures.reader import VOCAB_MAX, Reader


def bias(config: Reader, rule: bool | str) -> bool:
    """A family's bias rule: fixed, or the config flag of that name."""
    return config.flag(rule) if isinstance(rule, str) else rule


def head_counts(config: Reader) -> tuple[int, int, int]:
    """Query heads, KV heads and head dimension; grouped and multi-query spellings of all families."""
    heads = config.number("num_attention_heads", "n_head", "n_heads", "num_heads", low=1, high=4096)
    kv_heads = _kv_heads(config, heads)
    hidden = hidden_size(config)
    head_dim = config.number(
        "head_dim", "kv_channels", "attention_head_dim", "d_kv", default=hidden // heads, low=1, high=8192
    )
    if heads % kv_heads:
        raise config.fail("num_key_value_heads", f"({kv_heads}) does not divide {heads} attention heads")
    return heads, kv_heads, head_dim


def hidden_size(config: Reader) -> int:
    return config.number("hidden_size", "n_embd", "d_model", "dim", low=1)


def _kv_heads(config: Reader, heads: int) -> int:
    if config.flag("new_decoder_architecture"):
        return config.number("num_kv_heads", "n_head_kv", "num_key_value_heads", default=heads, low=1, high=4096)
    if config.flag("multi_query_attention", "multi_query"):
        return config.number("multi_query_group_num", default=1, low=1, high=4096)
    return config.number("num_key_value_heads", "num_kv_heads", "n_head_kv", default=heads, low=1, high=4096)


def attention(
    config: Reader,
    family: Family,
    kind: MixerKind,
    window: int | None = None,
    *,
    heads: tuple[int, int, int] | None = None,
    shares_cache: bool = False,
    one_projection: bool = False,
) -> Mixer:
    """Multi-head, grouped-query or multi-query attention of one layer. ``heads`` overrides query heads, KV heads and
    head dimension; a layer that ``shares_cache`` reads an earlier layer's K/V and has none of its own; with
    ``one_projection`` keys and values come from one matrix."""
    query_heads, kv_heads, head_dim = heads or head_counts(config)
    v_dim = config.number("swa_v_head_dim" if kind == "sliding" else "v_head_dim", "v_head_dim", default=head_dim)
    hidden = hidden_size(config)
    query_width = query_heads * head_dim * (2 if family.gated_query else 1)
    kv_width = 0 if shares_cache else kv_heads * (head_dim if one_projection else head_dim + v_dim)
    other = query_width + kv_width if bias(config, family.qkv_bias) else 0
    other += hidden if bias(config, family.out_bias) else 0
    other += _qk_norm(config, family, query_heads, kv_heads, head_dim) // (2 if shares_cache else 1)
    other += query_heads if family.sinks or _sliding_sinks(config, kind) else 0
    return Mixer(
        kind,
        projection_parameters=hidden * (query_width + kv_width) + query_heads * v_dim * hidden,
        key_value_parameters=hidden * kv_width,
        other_parameters=other,
        heads=query_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        v_head_dim=v_dim,
        window=window,
        kv_elements_per_token=0 if kind == "encoder" or shares_cache else kv_heads * (head_dim + v_dim),
    )


def _sliding_sinks(config: Reader, kind: MixerKind) -> bool:
    return kind == "sliding" and config.flag("add_swa_attention_sink_bias")


def _qk_norm(config: Reader, family: Family, heads: int, kv_heads: int, head_dim: int) -> int:
    """Norms on queries and keys: per head dimension, or over the whole width; some families switch them by flag."""
    mode = family.qk_norm
    if family.qk_norm_flag:
        mode = mode if config.flag(family.qk_norm_flag) else ""
    if mode == "head":
        return 2 * head_dim
    return (heads + kv_heads) * head_dim if mode == "full" else 0


def latent_attention(config: Reader, family: Family, indexed: bool = True) -> Mixer:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434 §2.1): the cache holds one latent and one rope key
    per token, whatever the number of heads; each tensor-parallel rank keeps both whole. Sparse models add an indexer,
    which some layers share with the one before (``indexed`` False)."""
    hidden = hidden_size(config)
    heads = config.number("num_attention_heads", low=1, high=4096)
    latent = config.number("kv_lora_rank", low=1)
    nope = config.number("qk_nope_head_dim", low=1, high=8192)
    rope = config.number("qk_rope_head_dim", default=0, high=8192)
    v_dim = config.number("v_head_dim", low=1, high=8192)
    rank = config.number("q_lora_rank", default=0)
    with_bias = bias(config, family.qkv_bias)
    query = hidden * rank + rank * heads * (nope + rope) if rank else hidden * heads * (nope + rope)
    down = hidden * (latent + rope)
    up = latent * heads * (nope + v_dim)
    other = latent + rank + ((rank + latent + rope + hidden) if with_bias else 0)
    index, index_other, index_bytes = _indexer(config, hidden, rank) if indexed else (0, 0, 0)
    return Mixer(
        "mla",
        projection_parameters=query + down + up + heads * v_dim * hidden + index,
        replicated_parameters=down + hidden * rank + index,
        other_parameters=other + index_other,
        heads=heads,
        kv_heads=1,
        head_dim=nope + rope,
        v_head_dim=v_dim,
        kv_elements_per_token=latent + rope,
        index_bytes_per_token=index_bytes,
    )


def _indexer(config: Reader, hidden: int, rank: int) -> tuple[int, int, int]:
    """The lightning indexer of sparse attention (DeepSeek-V3.2): projections, norm, and fp8 keys with one scale."""
    dim = config.number("index_head_dim", default=0, high=8192)
    heads = config.number("index_n_heads", default=0, high=4096)
    if not dim or not heads:
        return 0, 0, 0
    return rank * heads * dim + hidden * dim + hidden * heads, 2 * dim, dim + 4


def window_of(config: Reader) -> int | None:
    """The sliding window in tokens; None when absent or switched off."""
    if config.raw("use_sliding_window") is False:
        return None
    value = config.number("sliding_window", "sliding_window_size", "local_attention", default=0, high=VOCAB_MAX * 256)
    return value or None


__all__ = ["NO_MIXER", "attention", "bias", "head_counts", "hidden_size", "latent_attention", "window_of"]
