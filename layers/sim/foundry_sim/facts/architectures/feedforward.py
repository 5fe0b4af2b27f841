"""Parameter counts of dense MLPs and mixtures of experts, from config fields."""

from foundry_sim.facts.architecture import FeedForward
from foundry_sim.facts.architectures.families import Family
from foundry_sim.facts.architectures.mixers import bias, hidden_size
from foundry_sim.facts.architectures.reader import EXPERTS_MAX, Reader

EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts")


def mlp_parameters(hidden: int, intermediate: int, gated: bool) -> int:
    return hidden * intermediate * (3 if gated else 2)


def intermediate_size(config: Reader, hidden: int) -> int:
    """Width of the dense MLP; GPT-2-like families leave it at four times hidden."""
    names = ("dense_intermediate_size", "intermediate_size_mlp", "intermediate_size", "ffn_dim", "n_inner", "d_ff",
             "ffn_hidden_size", "hidden_dim", "intermediate_dim")  # fmt: skip
    width = config.number(*names, default=4 * hidden, low=1, high=1 << 22)
    if config.text("model_type").startswith("lfm2") and config.flag("block_auto_adjust_ff_dim"):
        return _adjusted(config, width)
    # The first Qwen counts gate and up together.
    return width // 2 if config.text("model_type") == "qwen" else width


def _adjusted(config: Reader, width: int) -> int:
    """LFM2 states a nominal width: two thirds of it, scaled, rounded up to a multiple."""
    scaled = int(config.ratio("block_ffn_dim_multiplier", default=1.0) * int(2 * width / 3))
    multiple = config.number("block_multiple_of", default=256, low=1)
    return -(-scaled // multiple) * multiple


def dense(config: Reader, family: Family, intermediate: int) -> FeedForward:
    hidden = hidden_size(config)
    with_bias = bias(config, family.mlp_bias)
    bias_width = (2 if family.gated else 1) * intermediate + hidden
    return FeedForward(
        "dense",
        dense_parameters=mlp_parameters(hidden, intermediate, family.gated),
        other_parameters=bias_width if with_bias else 0,
        intermediate=intermediate,
    )


def expert_count(config: Reader) -> int:
    """Routed experts per MoE layer; 0 for a dense model."""
    value = config.raw(*EXPERT_COUNTS)
    if isinstance(value, list):  # Hunyuan writes one entry per layer, ERNIE-VL one per modality
        value = _first(value, EXPERT_COUNTS[0])
        return value if value > 1 else 0
    count = config.number(*EXPERT_COUNTS, default=0, high=EXPERTS_MAX)
    return count if count > 1 else 0


def _first(values: list[object], name: str, low: int = 0) -> int:
    return Reader({name: values[0] if values else None}).number(
        name, default=0 if low == 0 else None, low=low, high=1 << 22
    )


def mixture(config: Reader, family: Family) -> FeedForward:
    """Router, routed experts and shared experts of one layer."""
    hidden = hidden_size(config)
    experts = expert_count(config)
    width = expert_width(config)
    shared = shared_width(config, width)
    gate = hidden if config.has("shared_expert_intermediate_size") and shared else 0
    latent = config.number("moe_latent_size", "routed_expert_hidden_size", default=0)
    expert_bias = ((2 if family.gated else 1) * width + hidden) if family.expert_bias else 0
    idle = config.number("zero_expert_num", default=0, high=EXPERTS_MAX)  # experts that only copy their input
    return FeedForward(
        "moe",
        dense_parameters=mlp_parameters(hidden, shared, family.gated) + 2 * hidden * latent,
        router_parameters=hidden * (experts + idle) + gate,
        expert_parameters=mlp_parameters(latent or hidden, width, family.gated),
        other_parameters=experts * expert_bias + (experts + idle if family.router_bias else 0),
        experts=experts,
        experts_per_token=chosen_experts(config, experts),
        moe_intermediate=width,
        shared_intermediate=shared,
    )


def chosen_experts(config: Reader, experts: int) -> int:
    names = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "top_k_experts",
             "moe_top_k", "moe_k")  # fmt: skip
    value = config.raw(*names)
    if isinstance(value, list):
        return max(1, min(experts, _first(value, names[0])))
    return config.number(*names, low=1, high=experts)


def expert_width(config: Reader) -> int:
    names = ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size", "ffn_hidden_size")
    value = config.raw(*names)
    if isinstance(value, list):
        return _first(value, names[0], low=1)
    return config.number(*names, low=1, high=1 << 22)


def shared_width(config: Reader, width: int) -> int:
    """Total width of the experts that see every token."""
    counts = ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
    listed = config.raw(*counts)
    count = _first(listed, counts[0]) if isinstance(listed, list) else config.number(*counts, default=0, high=1024)
    names = ("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size",
             "share_expert_dim")  # fmt: skip
    if config.has(*names):
        return config.number(*names, high=1 << 22) * (count if config.has("shared_intermediate_size") and count else 1)
    if config.text("model_type").startswith("llama4"):
        return width
    return count * width
