"""Which ways of splitting a model are possible: divisibility by heads, experts and layers, node and link boundaries."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from foundry_sim.errors import ConfigurationError
from foundry_sim.facts.architecture import Architecture, Layer
from foundry_sim.facts.devices import Device
from foundry_sim.facts.precision import Precision
from foundry_sim.facts.weights import Layout

_DEGREES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64, 72)
_PIPELINES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
_FP8_BLOCK = 128
_EVEN_HEADS = ("vllm", "sglang", "trtllm")  # DeepSpeed ran 28 heads on 8 devices


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a cluster that one device group offers."""

    device: Device
    nodes: int
    devices_per_node: int

    @property
    def link_width(self) -> int:
        """Devices that reach each other at full link speed: a node, or an NVLink domain over several nodes."""
        if self.device.link_domain_devices > self.device.devices_per_node:
            return min(self.device.link_domain_devices, self.nodes * self.devices_per_node)
        return self.devices_per_node


def layouts(architecture: Architecture, span: Span, precision: Precision, engine: str) -> list[Layout]:
    """All layouts of one replica that the engine can run on this group, smallest first."""
    total = span.nodes * span.devices_per_node
    found = [
        Layout(tp, pp, ep, dp)
        for tp in _DEGREES
        if tp <= span.link_width and tp_divides(architecture, tp)
        for pp in _pipelines(architecture, span.nodes)
        for dp in _attention_copies(architecture, engine)
        if tp * pp * dp <= total and replicas_that_fit(span, tp * pp * dp, tp) > 0
        for ep in _expert_degrees(architecture, tp, dp)
        if experts_split(architecture, precision, tp * dp // ep)
    ]
    return sorted(found, key=lambda layout: (layout.devices, layout.pp, layout.dp, layout.ep))


def _pipelines(architecture: Architecture, nodes: int) -> tuple[int, ...]:
    """Powers of two inside a node; other depths only to match a number of nodes."""
    if architecture.task != "generate" or architecture.encoder_blocks:
        return (1,)
    wanted = {1, 2, 4, 8} | {pp for pp in _PIPELINES if pp <= nodes}
    return tuple(pp for pp in sorted(wanted) if pp <= architecture.layers)


def _attention_copies(architecture: Architecture, engine: str) -> tuple[int, ...]:
    """Data-parallel attention exists to keep a latent or a few K/V heads from being replicated in MoE models; for a
    dense model it is the same as another replica."""
    if not architecture.is_moe or engine not in {"vllm", "sglang", "trtllm"}:
        return (1,)
    return (1, 2, 4, 8, 16, 32)


def _expert_degrees(architecture: Architecture, tp: int, dp: int) -> Iterator[int]:
    """Experts are split by columns over all ranks, or whole experts are placed over all of them."""
    ranks = tp * dp
    if dp == 1:
        yield 1
    if architecture.is_moe and ranks > 1 and architecture.experts % ranks == 0:
        yield ranks


@lru_cache(maxsize=4096)
def tp_divides(architecture: Architecture, tp: int) -> bool:
    """Whether every layer's heads and widths can be split by ``tp``; K/V heads may be replicated instead."""
    return all(_layer_divides(layer, tp) for layer, _ in architecture.groups)


def _layer_divides(layer: Layer, tp: int) -> bool:
    mixer, mlp = layer.mixer, layer.feed_forward
    if mixer.heads and mixer.heads % tp:
        return False
    replicable = mixer.kind == "mla" or not mixer.kv_heads or mixer.kv_heads % tp == 0 or tp % mixer.kv_heads == 0
    width = mlp.intermediate if mlp.kind == "dense" else mlp.shared_intermediate
    return replicable and (not width or width % tp == 0)


def refuse_split(architecture: Architecture, engine: str, layout: Layout) -> None:
    """ConfigurationError for a split that no engine starts. Milder than `layouts`, which proposes: experts may be
    spread unevenly, and runs of a mixture of experts on many devices often do not say that attention is copied."""
    tp, ep, heads, name = layout.tp, layout.ep, architecture.heads, architecture.name
    if ep > max(architecture.experts, 1):
        raise ConfigurationError(f"ep={ep} exceeds the {architecture.experts} experts of {name}")
    copied = architecture.is_moe and (ep > 1 or tp > 8)
    if engine in _EVEN_HEADS and heads % tp and not copied:
        possible = ", ".join(str(n) for n in _DEGREES if heads % n == 0)
        raise ConfigurationError(f"tp={tp} does not divide the {heads} attention heads of {name}; use {possible}")


def experts_split(architecture: Architecture, precision: Precision, shards: int) -> bool:
    """Whether ``shards`` ranks can share each expert: by columns, in whole fp8 blocks where scales are per block."""
    if shards == 1 or not architecture.is_moe:
        return True
    width = architecture.moe_intermediate
    if precision.moe == "fp8":
        return width % (shards * _FP8_BLOCK) == 0 or (width % shards == 0 and width < _FP8_BLOCK)
    return width % shards == 0


def replicas_that_fit(span: Span, devices: int, tp: int) -> int:
    """How many replicas of that many devices the group can hold. A replica stays inside a node while it can; a larger
    one takes whole nodes, and its tensor-parallel groups stay inside the link domain."""
    if devices <= span.devices_per_node:
        return span.nodes * (span.devices_per_node // devices)
    if devices % span.devices_per_node or tp > span.link_width:
        return 0
    if tp <= span.devices_per_node and span.devices_per_node % tp:
        return 0
    return span.nodes // (devices // span.devices_per_node)
