"""What the simulator knows about a model, as plain data."""

from collections import Counter

import foundry_sim.facts.architecture as sim
from foundry_sim.facts.memory import checkpoint_bytes, kv_bytes_per_token
from foundry_sim.facts.precision import Precision

from functions.model.schemas import Architecture, Facts

_WEIGHTS = ("bf16", "fp8", "int8", "int4", "nvfp4")
_CACHES = ("bf16", "fp8")


def facts_of(found: sim.Architecture) -> Facts:
    return Facts(
        architecture=_architecture(found),
        parameters=found.parameters,
        active_parameters=found.active_parameters,
        weight_bytes=_weight_bytes(found),
        kv_bytes_per_token={name: kv_bytes_per_token(found, name) for name in _CACHES},
    )


def _weight_bytes(found: sim.Architecture) -> dict[str, int]:
    """``checkpoint`` is the precision that the weights are shipped in."""
    sizes = {name: checkpoint_bytes(found, Precision(weights=name)) for name in _WEIGHTS}
    return {"checkpoint": checkpoint_bytes(found, found.checkpoint_precision), **sizes}


def _architecture(found: sim.Architecture) -> Architecture:
    return Architecture(
        model_type=found.model_type, task=found.task, layers=found.layers, hidden=found.hidden, heads=found.heads,
        kv_heads=found.kv_heads, head_dim=found.head_dim, intermediate=found.intermediate, vocab=found.vocab,
        max_position=found.max_position, tied_embeddings=found.tied_embeddings,
        attention_layers=dict(Counter(found.attention)), moe_layers=sum(found.moe_layers), experts=found.experts,
        experts_per_token=found.experts_per_token, checkpoint_precision=found.checkpoint_precision.label(),
    )  # fmt: skip
