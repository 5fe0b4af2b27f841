"""Parameters and per-sequence state of layers that keep a fixed state instead of a growing cache."""

from dataclasses import replace

from foundry_sim.facts.architecture import Mixer
from foundry_sim.facts.architectures.mixers import hidden_size
from foundry_sim.facts.architectures.reader import Reader

CONVOLUTION_BYTES = 2  # convolution states are kept in the activations' 16 bit


def _state_width(config: Reader) -> int:
    """Bytes per element of the recurrent state; engines keep it in fp32 when the config says so."""
    return 4 if config.text("mamba_ssm_cache_dtype", "mamba_ssm_dtype", default="float32") == "float32" else 2


def gated_delta(config: Reader, split_gates: bool = False) -> Mixer:
    """Gated DeltaNet (arXiv:2412.06464) as in Qwen3-Next: q, k, v, z, b and a projections, a short convolution."""
    hidden = hidden_size(config)
    key_heads = config.number("linear_num_key_heads", low=1, high=4096)
    value_heads = config.number("linear_num_value_heads", low=1, high=4096)
    key_dim = config.number("linear_key_head_dim", low=1, high=8192)
    value_dim = config.number("linear_value_head_dim", low=1, high=8192)
    kernel = config.number("linear_conv_kernel_dim", default=4, low=1, high=64)
    keys, values = key_heads * key_dim, value_heads * value_dim
    width = 2 * keys + values
    return Mixer(
        "linear",
        projection_parameters=hidden * (width + values) + hidden * 2 * value_heads + values * hidden,
        other_parameters=width * kernel + 2 * value_heads + value_dim,
        heads=0,
        state_bytes=width * (kernel - 1) * CONVOLUTION_BYTES + value_heads * key_dim * value_dim * _state_width(config),
    )


def kimi_delta(config: Reader) -> Mixer:
    """Kimi Delta Attention (arXiv:2510.26692): per-channel decay and low-rank gates."""
    hidden = hidden_size(config)
    section = config.section("linear_attn_config") or {}
    linear = Reader(section, where="linear_attn_config.")
    heads = linear.number("num_heads", default=config.number("linear_num_heads", default=32), low=1, high=4096)
    dim = linear.number("head_dim", default=config.number("linear_head_dim", default=128), low=1, high=8192)
    kernel = linear.number("short_conv_kernel_size", default=4, low=1, high=64)
    width = heads * dim
    gate = hidden * width if linear.flag("use_full_rank_gate") else hidden * dim + dim * width
    forget = hidden * dim + dim * width
    return Mixer(
        "linear",
        projection_parameters=4 * hidden * width + gate + forget + hidden * heads,
        other_parameters=3 * width * kernel + width + heads + dim,
        state_bytes=3 * width * (kernel - 1) * CONVOLUTION_BYTES + heads * dim * dim * 4,
    )


def lightning(config: Reader) -> Mixer:
    """Lightning attention (arXiv:2501.08313, MiniMax-01): linear attention with an output gate and a norm."""
    hidden = hidden_size(config)
    heads = config.number("num_attention_heads", low=1, high=4096)
    dim = config.number("head_dim", default=hidden // heads, low=1, high=8192)
    width = heads * dim
    return Mixer(
        "linear",
        projection_parameters=hidden * width * 5,
        other_parameters=width,
        state_bytes=heads * dim * dim * 4,
    )


def short_convolution(config: Reader) -> Mixer:
    """The gated short convolution of LFM2."""
    hidden = hidden_size(config)
    kernel = config.number("conv_L_cache", default=3, low=1, high=64)
    biased = config.flag("conv_bias")
    return Mixer(
        "linear",
        projection_parameters=4 * hidden * hidden,
        other_parameters=hidden * kernel + (5 * hidden if biased else 0),
        state_bytes=hidden * kernel * CONVOLUTION_BYTES,
    )


def selective_scan(config: Reader) -> Mixer:
    """Mamba 1 (arXiv:2312.00752), with the three inner norms that Jamba adds."""
    hidden = hidden_size(config)
    inner = config.number("intermediate_size", default=2 * hidden) if _is_mamba(config) else 0
    inner = inner or config.number("mamba_expand", "expand", default=2, low=1, high=64) * hidden
    state = config.number("mamba_d_state", "state_size", default=16, low=1, high=4096)
    kernel = config.number("mamba_d_conv", "conv_kernel", default=4, low=1, high=64)
    rank = _rank(config, hidden)
    projections = hidden * 2 * inner + inner * (rank + 2 * state) + rank * inner + inner * hidden
    convolution = inner * kernel + (inner if config.flag("mamba_conv_bias", "use_conv_bias", default=True) else 0)
    biases = (2 * inner + hidden) if config.flag("mamba_proj_bias", "use_bias") else 0
    norms = 0 if _is_mamba(config) else rank + 2 * state
    return Mixer(
        "ssm",
        projection_parameters=projections,
        other_parameters=convolution + inner + inner * state + inner + norms + biases,
        state_bytes=inner * (kernel - 1) * CONVOLUTION_BYTES + inner * state * _state_width(config),
    )


def _is_mamba(config: Reader) -> bool:
    return config.text("model_type") in {"mamba", "falcon_mamba"}


def _rank(config: Reader, hidden: int) -> int:
    value = config.raw("mamba_dt_rank", "time_step_rank")
    return -(-hidden // 16) if value in (None, "auto") else config.number("mamba_dt_rank", "time_step_rank", low=1)


def state_space_duality(config: Reader, gate_norm: bool = True) -> Mixer:
    """Mamba 2 (arXiv:2405.21060): one projection to gate, x, B, C and dt."""
    hidden = hidden_size(config)
    heads = config.number("mamba_num_heads", "mamba_n_heads", "num_heads", low=1, high=1 << 14)
    inner = config.number("mamba_d_ssm", default=0) or _inner(config, hidden, heads)
    groups = config.number("n_groups", "mamba_n_groups", default=1, low=1, high=4096)
    state = config.number("ssm_state_size", "mamba_d_state", "state_size", default=128, low=1, high=8192)
    kernel = config.number("conv_kernel", "mamba_d_conv", default=4, low=1, high=64)
    mixed = inner + 2 * groups * state
    convolution = mixed * kernel + (mixed if config.flag("use_conv_bias", "mamba_conv_bias", default=True) else 0)
    biases = (inner + mixed + heads + hidden) if config.flag("use_bias", "mamba_proj_bias") else 0
    return Mixer(
        "ssm",
        projection_parameters=hidden * (inner + mixed + heads) + inner * hidden,
        other_parameters=convolution + 3 * heads + (inner if gate_norm else 0) + biases,
        state_bytes=mixed * (kernel - 1) * CONVOLUTION_BYTES + inner * state * _state_width(config),
    )


def _inner(config: Reader, hidden: int, heads: int) -> int:
    dim = config.raw("mamba_head_dim", "mamba_d_head", "head_dim")
    if isinstance(dim, int) and not isinstance(dim, bool):
        return heads * config.number("mamba_head_dim", "mamba_d_head", "head_dim", low=1, high=8192)
    return config.number("mamba_expand", "expand", default=2, low=1, high=64) * hidden


def both(attention: Mixer, state_space: Mixer) -> Mixer:
    """Attention and a state-space mixer side by side in one layer (Falcon-H1)."""
    return replace(
        attention,
        projection_parameters=attention.projection_parameters + state_space.projection_parameters,
        other_parameters=attention.other_parameters + state_space.other_parameters,
        state_bytes=state_space.state_bytes,
    )
