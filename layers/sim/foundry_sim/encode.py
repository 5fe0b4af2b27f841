"""Models that return vectors or scores: every request is one prefill, batched up to the engine's token budget.

Closed form only (no measurements to correct it with), hence a wide interval and never "in domain". Sequences of a batch
do not attend to each other, so a batch costs its tokens' GEMMs and each sequence's own attention.
"""

import numpy as np
from numpy.typing import NDArray

from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.devices import Device
from foundry_sim.facts.precision import Precision
from foundry_sim.facts.weights import Layout
from foundry_sim.outcome import Outcome, Spreads
from foundry_sim.physics.step import Setup, StepModel
from foundry_sim.physics.terms import Array

_INTERVAL = 1.6  # the mean lies within this factor: the spread of the closed form's error on generative prefill
NEVER_MS = 1e9
_STEADY = 0.95
_QUEUE_BATCHES = 4  # batches that may wait before an open loop counts as overloaded


def encoded(
    architecture: Architecture,
    device: Device,
    engine: str,
    precision: Precision,
    layouts: list[Layout],
    index: NDArray[np.intp],
    load: Array,
    *,
    tokens: int,
    chunk_tokens: int,
    closed: bool,
) -> tuple[Outcome, Array]:
    """Time to result and requests/s for rows that pick a layout by ``index``, and how many requests there is room for;
    ``load`` is users or requests/s. Rows that get more than they answer take `NEVER_MS`."""
    largest = full_batch(tokens, chunk_tokens)
    sizes = np.array([1, largest])
    steps = [_batches_ms(architecture, device, engine, precision, layout, tokens, sizes) for layout in layouts]
    alone, full = np.array(steps)[index].T
    mean = _closed_ms(alone, full, largest, load) if closed else _open_ms(alone, full, largest, load)
    rate = load / (mean / 1e3) if closed else load
    # Requests wait for the batch in front of theirs at worst: the tail is one more batch.
    tail = mean + np.where(mean < NEVER_MS, np.minimum(full, mean), 0.0)
    spread = Spreads(mean, mean, tail, tail, mean / _INTERVAL, mean * _INTERVAL)
    none = Spreads(*(np.zeros_like(mean) for _ in range(6)))
    low, high = rate / _INTERVAL, rate * _INTERVAL
    outcome = Outcome(spread, none, spread, rate, low, high, np.zeros(len(mean), bool))
    return outcome, np.full(len(mean), float(_QUEUE_BATCHES * largest))


def full_batch(tokens: int, chunk_tokens: int) -> int:
    """Sequences that the token budget of a step takes; one that is longer goes alone."""
    return max(1, chunk_tokens // tokens)


def _batches_ms(
    architecture: Architecture,
    device: Device,
    engine: str,
    precision: Precision,
    layout: Layout,
    tokens: int,
    sizes: NDArray[np.intp],
) -> Array:
    """Batches of so many sequences; the mean context of a token is half its own sequence."""
    split = (layout.tp, layout.pp, layout.ep, layout.dp)
    model = StepModel(Setup(architecture, device, engine, None, None, precision, *split))
    whole = sizes * tokens
    return model.prefill_ms(whole, tokens / 2 - whole / 2)


def _closed_ms(alone: Array, full: Array, largest: int, users: Array) -> Array:
    """All users' requests go round in batches: a batch of all of them, or as many full ones as it takes."""
    share = np.clip((users - 1) / max(1, largest - 1), 0.0, 1.0)
    one = alone + share * (full - alone)
    return np.asarray(one * np.maximum(1.0, users / largest))


def _open_ms(alone: Array, full: Array, largest: int, rate: Array) -> Array:
    """A batch server: at low load a request runs alone, near saturation it waits for a full batch (M/D/1)."""
    busy = rate * full / largest / 1e3
    waiting = busy / (2 * np.maximum(1 - busy, 1e-3)) * full
    return np.asarray(np.where(busy < _STEADY, alone + np.minimum(busy, 1.0) * (full - alone) + waiting, NEVER_MS))
