"""What a model's ``config.json`` says about its size: layers, attention, experts, caches, parameters.

Everything is counted from the config alone, so that memory and time are known before a weight is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from foundry_sim.errors import ArchitectureError
from foundry_sim.facts.precision import Precision

__all__ = [
    "Architecture",
    "ArchitectureError",
    "FeedForward",
    "Layer",
    "Mixer",
    "from_config",
    "names",
    "resolve",
]

MixerKind = Literal["full", "sliding", "chunked", "mla", "linear", "ssm", "encoder", "none"]
Task = Literal["generate", "embed", "classify"]


@dataclass(frozen=True, slots=True)
class Mixer:
    """The token-mixing half of a layer. Counts are elements unless the name says bytes.

    ``projection_parameters`` are the matrices that quantisation may shrink; ``key_value_parameters`` (a part of
    them) belong to K/V heads, which tensor parallelism replicates when it exceeds ``kv_heads``;
    ``replicated_parameters`` (a part of them) are held whole by each rank (the MLA down-projections).
    ``other_parameters`` are norms, biases, sinks and convolutions, never quantised.
    """

    kind: MixerKind
    projection_parameters: int = 0
    key_value_parameters: int = 0
    replicated_parameters: int = 0
    other_parameters: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    v_head_dim: int = 0
    window: int | None = None
    kv_elements_per_token: int = 0
    index_bytes_per_token: int = 0
    cross_kv_elements_per_token: int = 0
    state_bytes: int = 0

    @property
    def parameters(self) -> int:
        return self.projection_parameters + self.other_parameters


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The other half: one MLP, or a router with experts (``expert_parameters`` counts one routed expert).

    ``dense_parameters`` is the plain MLP, or what every token passes beside the routed experts (shared experts,
    latent projections); ``router_parameters`` and ``other_parameters`` (biases) are never quantised.
    """

    kind: Literal["dense", "moe", "none"]
    dense_parameters: int = 0
    router_parameters: int = 0
    expert_parameters: int = 0
    other_parameters: int = 0
    intermediate: int = 0
    experts: int = 0
    experts_per_token: int = 0
    moe_intermediate: int = 0
    shared_intermediate: int = 0

    @property
    def parameters(self) -> int:
        fixed = self.dense_parameters + self.router_parameters + self.other_parameters
        return fixed + self.experts * self.expert_parameters

    @property
    def active_parameters(self) -> int:
        fixed = self.dense_parameters + self.router_parameters + self.other_parameters
        return fixed + self.experts_per_token * self.expert_parameters


NO_MIXER = Mixer("none")
NO_FEED_FORWARD = FeedForward("none")


@dataclass(frozen=True, slots=True)
class Layer:
    """One block: mixer, feed-forward and the norms around them."""

    mixer: Mixer
    feed_forward: FeedForward
    norm_parameters: int = 0

    @property
    def parameters(self) -> int:
        return self.mixer.parameters + self.feed_forward.parameters + self.norm_parameters

    @property
    def active_parameters(self) -> int:
        return self.mixer.parameters + self.feed_forward.active_parameters + self.norm_parameters


@dataclass(frozen=True)
class Architecture:
    """A model's size facts. ``blocks`` is the truth, one entry per layer; the flat fields describe the first
    attention layer and the first MoE layer, which is all of them for most models. ``vision_counted`` is False when the
    config has a vision tower of an unknown kind: the model then counts as text only. ``family_known`` is False when the
    model type is new to us: its fields are then read as a Llama-like decoder's."""

    name: str
    model_type: str
    task: Task
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied_embeddings: bool
    max_position: int
    blocks: tuple[Layer, ...] = field(repr=False)
    embedding_parameters: int = 0
    head_parameters: int = 0
    other_parameters: int = 0
    vision_parameters: int = 0
    vision_counted: bool = True
    family_known: bool = True
    encoder_blocks: tuple[Layer, ...] = field(default=(), repr=False)
    mtp_layers: int = 0
    mtp_parameters: int = 0
    sliding_window: int | None = None
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    experts: int = 0
    experts_per_token: int = 0
    moe_intermediate: int = 0
    shared_experts: int = 0
    shared_intermediate: int = 0
    checkpoint_precision: Precision = field(default_factory=Precision)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Computed once: caches are keyed by architecture, and a model has up to a thousand layers."""
        return hash((self.name, self.model_type, self.hidden, self.vocab, self.groups, self.checkpoint_precision))

    @cached_property
    def groups(self) -> tuple[tuple[Layer, int], ...]:
        """Distinct decoder layers with how often each occurs, in order of first appearance."""
        counts: dict[Layer, int] = {}
        for block in self.blocks:
            counts[block] = counts.get(block, 0) + 1
        return tuple(counts.items())

    @cached_property
    def attention(self) -> tuple[MixerKind, ...]:
        """The mixer kind of each decoder layer."""
        return tuple(block.mixer.kind for block in self.blocks)

    @cached_property
    def moe_layers(self) -> tuple[bool, ...]:
        """For each decoder layer, whether it routes tokens to experts."""
        return tuple(block.feed_forward.kind == "moe" for block in self.blocks)

    @cached_property
    def text_parameters(self) -> int:
        """Language-model parameters: embeddings, layers, head; no vision tower, no MTP layers."""
        layers = sum(block.parameters for block in self.blocks + self.encoder_blocks)
        return layers + self.embedding_parameters + self.head_parameters + self.other_parameters

    @property
    def parameters(self) -> int:
        """All parameters an engine loads: text and vision tower; MTP layers are loaded only for speculation."""
        return self.text_parameters + self.vision_parameters

    @cached_property
    def active_parameters(self) -> int:
        """Text parameters that one token touches: of the routed experts only the chosen ones."""
        layers = sum(block.active_parameters for block in self.blocks + self.encoder_blocks)
        return layers + self.embedding_parameters + self.head_parameters + self.other_parameters

    @property
    def is_moe(self) -> bool:
        return self.experts > 0


def from_config(config: Mapping[str, Any], name: str = "") -> Architecture:
    """The architecture that a Hugging Face config describes. ArchitectureError names the offending field."""
    from foundry_sim.facts.architectures.build import build

    return build(config, name)


def resolve(model: str | Mapping[str, Any]) -> Architecture:
    """A bundled name (repo id or alias, any case), a path to a ``config.json``, or a config object."""
    from foundry_sim.facts.architectures.catalogue import load

    if isinstance(model, Mapping):
        return from_config(model, str(model.get("_name_or_path") or model.get("model_type") or "model"))
    if not isinstance(model, str):
        raise ArchitectureError("model must be a name, a path or a config object")
    return load(model)


def names() -> list[str]:
    """Repo ids of the bundled architectures, sorted."""
    from foundry_sim.facts.architectures.catalogue import bundled_names

    return bundled_names()
