"""Parameter counts of dense MLPs and mixtures of experts, from config fields."""

from foundry_sim.architecture import FeedForward
from foundry_sim.architectures.families import Family
from foundry_sim.architectures.mixers import bias, hidden_size
from foundry_sim.architectures.reader import EXPERTS_MAX, Reader

EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts")


def mlp_parameters(hidden: int, intermediate: int, gated: bool) -> int:
    return hidden * intermediate * (3 if gated else 2)


def intermediate_size(config: Reader, hidden: int) -> int:
    """Width of the dense MLP; GPT-2-like families leave it at four times hidden."""
    names = ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size", "intermediate_dim")
    return config.number(*names, default=4 * hidden, low=1, high=1 << 22)


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
    if isinstance(value, list) and value and len(set(map(str, value))) == 1:
        value = value[0]  # Hunyuan writes one entry per layer, ERNIE-VL one per modality
        return Reader({"num_experts": value}).number("num_experts", high=EXPERTS_MAX)
    count = config.number(*EXPERT_COUNTS, default=0, high=EXPERTS_MAX)
    return count if count > 1 else 0


def mixture(config: Reader, family: Family) -> FeedForward:
    """Router, routed experts and shared experts of one layer."""
    hidden = hidden_size(config)
    experts = expert_count(config)
    chosen = config.number(
        "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "top_k_experts",
        "moe_top_k", "moe_k", low=1, high=experts,
    )  # fmt: skip
    width = config.number(
        "moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size", "ffn_hidden_size", low=1, high=1 << 22
    )
    shared = shared_width(config, width)
    gate = hidden if config.has("shared_expert_intermediate_size") and shared else 0
    expert_bias = ((2 if family.gated else 1) * width + hidden) if family.expert_bias else 0
    return FeedForward(
        "moe",
        dense_parameters=mlp_parameters(hidden, shared, family.gated),
        router_parameters=hidden * experts + gate,
        expert_parameters=mlp_parameters(hidden, width, family.gated),
        other_parameters=experts * (expert_bias + (1 if family.router_bias else 0)),
        experts=experts,
        experts_per_token=chosen,
        moe_intermediate=width,
        shared_intermediate=shared,
    )


def shared_width(config: Reader, width: int) -> int:
    """Total width of the experts that see every token."""
    names = ("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size")
    explicit = config.number(*names, "share_expert_dim", default=0, high=1 << 22)
    if explicit:
        return explicit
    count = config.number("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts",
                          default=0, high=1024)  # fmt: skip
    return count * width
