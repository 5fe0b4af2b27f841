"""Bytes of weights and cache that one device holds under a parallel layout, stage by stage."""

from dataclasses import dataclass
from functools import lru_cache

from foundry_sim.errors import ConfigurationError
from foundry_sim.facts.architecture import Architecture, FeedForward, Layer, Mixer
from foundry_sim.facts.precision import Precision, bytes_of, cache_bytes_of

UNQUANTISED_BYTES = 2.0  # norms, biases, routers, embeddings and heads stay in 16 bit in every engine
LORA_BYTES = 2.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Degrees of parallelism of one replica, which uses tp × pp × dp devices. ``tp`` splits attention; the experts
    of a MoE are split over tp × dp devices, ``ep`` of it by whole experts. For a dense model dp means copies."""

    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1

    def __post_init__(self) -> None:
        for name in ("tp", "pp", "ep", "dp"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:
                raise ConfigurationError(f"{name} must be an integer between 1 and 4096")
        if (self.tp * self.dp) % self.ep:
            raise ConfigurationError(f"ep={self.ep} does not divide tp × dp = {self.tp * self.dp}")

    @property
    def devices(self) -> int:
        return self.tp * self.pp * self.dp


@dataclass(frozen=True, slots=True)
class Stage:
    """What one device of one pipeline stage holds."""

    weight_bytes: int
    kv_bytes_per_token: int
    windowed: tuple[tuple[int, int], ...]
    state_bytes: int
    cross_kv_bytes_per_token: int = 0

    def sequence_bytes(self, context_tokens: int, prompt_tokens: int = 0) -> int:
        """Cache of one sequence with this context; layers with a window keep at most the window."""
        growing = self.kv_bytes_per_token - sum(size for _, size in self.windowed)
        bounded = sum(size * min(context_tokens, window) for window, size in self.windowed)
        crossed = self.cross_kv_bytes_per_token * (prompt_tokens or context_tokens)
        return growing * context_tokens + bounded + self.state_bytes + crossed


@lru_cache(maxsize=4096)
def stages(architecture: Architecture, precision: Precision, layout: Layout) -> tuple[Stage, ...]:
    """One entry per pipeline stage, first to last."""
    count = architecture.layers
    if layout.pp > count:
        raise ConfigurationError(f"pp={layout.pp} exceeds the model's {count} layers")
    bounds = _split(count, layout.pp)
    found = []
    for number, (start, end) in enumerate(bounds):
        ends = _end_bytes(architecture, layout, first=number == 0, last=number == layout.pp - 1)
        found.append(_stage(architecture.blocks[start:end], precision, layout, ends))
    return tuple(found)


def _split(layers: int, pp: int) -> list[tuple[int, int]]:
    """Layers per stage as engines place them: the remainder goes to the stages before the last."""
    base, extra = divmod(layers, pp)
    sizes = [base] * pp
    for position in range(extra):
        sizes[pp - 2 - position if pp > 1 else 0] += 1
    starts = [sum(sizes[:index]) for index in range(pp)]
    return [(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _end_bytes(architecture: Architecture, layout: Layout, first: bool, last: bool) -> float:
    """Embeddings, vision tower and encoder sit in the first stage; the head (or a copy of tied embeddings) in the
    last. The vocabulary is split by tp, the vision tower is held whole."""
    total = 0.0
    if first:
        encoder = sum(block.parameters for block in architecture.encoder_blocks)
        total += (architecture.embedding_parameters + encoder) / layout.tp + architecture.vision_parameters
    if last:
        tied_copy = architecture.tied_embeddings and layout.pp > 1 and architecture.task == "generate"
        head = architecture.vocab * architecture.hidden if tied_copy else architecture.head_parameters
        total += head / layout.tp + architecture.other_parameters
    return total * UNQUANTISED_BYTES


def _stage(blocks: tuple[Layer, ...], precision: Precision, layout: Layout, end_bytes: float) -> Stage:
    weight, kv, state, cross = end_bytes, 0.0, 0.0, 0.0
    windows: dict[int, float] = {}
    counts: dict[Layer, int] = {}
    for block in blocks:
        counts[block] = counts.get(block, 0) + 1
    for block, count in counts.items():
        weight += count * layer_bytes(block, precision, layout)
        token_bytes = count * cache_bytes_per_token(block.mixer, precision, layout.tp)
        kv += token_bytes
        if block.mixer.window and token_bytes:
            windows[block.mixer.window] = windows.get(block.mixer.window, 0.0) + token_bytes
        state += count * block.mixer.state_bytes / layout.tp
        cross += count * block.mixer.cross_kv_elements_per_token * cache_bytes_of(precision.kv) / layout.tp
    windowed = tuple((window, round(size)) for window, size in sorted(windows.items()))
    return Stage(round(weight), round(kv), windowed, round(state), round(cross))


def layer_bytes(layer: Layer, precision: Precision, layout: Layout) -> float:
    """Weight bytes of one layer on one device."""
    return (
        _mixer_bytes(layer.mixer, precision, layout.tp)
        + _feed_forward_bytes(layer.feed_forward, precision, layout)
        + layer.norm_parameters * UNQUANTISED_BYTES
    )


def _mixer_bytes(mixer: Mixer, precision: Precision, tp: int) -> float:
    """K/V heads are replicated once tp exceeds them; latent down-projections are held whole by each rank."""
    key_value_shards = min(tp, mixer.kv_heads) if mixer.kv_heads else tp
    split = mixer.projection_parameters - mixer.replicated_parameters - mixer.key_value_parameters
    held = split / tp + mixer.replicated_parameters + mixer.key_value_parameters / key_value_shards
    return held * bytes_of(precision.attention) + mixer.other_parameters * UNQUANTISED_BYTES


def _feed_forward_bytes(feed_forward: FeedForward, precision: Precision, layout: Layout) -> float:
    dense = feed_forward.dense_parameters / layout.tp * bytes_of(precision.weights)
    unquantised = (feed_forward.router_parameters + feed_forward.other_parameters) * UNQUANTISED_BYTES
    if not feed_forward.experts:
        return dense + unquantised
    experts_here = -(-feed_forward.experts // layout.ep)
    shards = layout.tp * layout.dp // layout.ep
    return dense + unquantised + experts_here * feed_forward.expert_parameters / shards * bytes_of(precision.moe)


def cache_bytes_per_token(mixer: Mixer, precision: Precision, tp: int) -> float:
    """Cache bytes that one layer adds per token on one device: whole K/V heads, or the latent, which is not split."""
    if not mixer.kv_elements_per_token:
        return 0.0
    if mixer.kind == "mla":
        return mixer.kv_elements_per_token * cache_bytes_of(precision.kv) + mixer.index_bytes_per_token
    heads_here = -(-mixer.kv_heads // tp)
    per_head = mixer.kv_elements_per_token / mixer.kv_heads
    return heads_here * per_head * cache_bytes_of(precision.kv) + mixer.index_bytes_per_token


def lora_bytes(architecture: Architecture, layout: Layout, adapters: int, rank: int) -> int:
    """Slots for ``adapters`` LoRA adapters of ``rank`` on every projection of attention and dense MLP, split by tp
    (arXiv:2311.03285 keeps A and B of all loaded adapters resident)."""
    if not adapters:
        return 0
    per_adapter = sum(_lora_elements(block, architecture.hidden, rank) for block in architecture.blocks)
    return round(adapters * per_adapter * LORA_BYTES / layout.tp / layout.pp)


def _lora_elements(layer: Layer, hidden: int, rank: int) -> int:
    """A + B of each target: rank × (inputs + outputs)."""
    mixer, mlp = layer.mixer, layer.feed_forward
    query, values = mixer.heads * mixer.head_dim, mixer.heads * (mixer.v_head_dim or mixer.head_dim)
    keys = mixer.kv_heads * mixer.head_dim
    total = (hidden + query) + 2 * (hidden + keys) + (values + hidden) if mixer.heads else 0
    if mlp.intermediate and mlp.kind == "dense":
        total += 3 * (hidden + mlp.intermediate)
    return rank * total


@lru_cache(maxsize=1024)
def checkpoint_bytes(architecture: Architecture, precision: Precision) -> int:
    """All weight bytes of one copy of the model, scales included."""
    total = _end_bytes(architecture, Layout(), first=True, last=True)
    total += sum(count * layer_bytes(layer, precision, Layout()) for layer, count in architecture.groups)
    return round(total)
