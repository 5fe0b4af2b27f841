"""Continuous batching in closed form: what a client sees when an engine serves a steady load.

Elementwise over rows. The key relation for a closed loop of b requests per attention rank: in the life of one request
every other request is prefilled once, so its decode is stretched by (b-1) marginal prefills, and
`tpot = decode / accepted + (b-1)·prefill / osl`, with no fixed point to iterate. To the degree that requests run in
step (they all start at once, and equal lengths keep them together), half of that time moves into the first token.
An open loop finds its batch by Little's law.
"""

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from foundry_sim.physics.step import Parts, Shape, Work, decode_parts, decode_s, rank_step_s
from foundry_sim.physics.terms import Array, Terms

CLOSED, OPEN, OFFLINE, STATIC = 0.0, 1.0, 2.0, 3.0
KINDS = {"closed": CLOSED, "open": OPEN, "offline": OFFLINE, "static": STATIC}
_LITTLE_ROUNDS = 12
_HAND_OVER_S = 0.008
LONGEST_QUEUE = 3.0  # clients for each that fits at once; 2.8 in the data
_ZERO = np.asarray(0.0)
Columns = TypeVar("Columns", Terms, Shape, "Traffic")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Rows of load: mean lengths in tokens; `load` is a concurrency, requests/s, or a static batch."""

    isl: Array
    osl: Array
    kind: Array
    load: Array
    kv_tokens: Array  # cache capacity of the whole instance
    max_sequences: Array  # running at once, whole instance
    chunk_tokens: Array
    drafted: Array  # tokens verified per sequence and step (1 without speculation)
    accepted: Array  # tokens produced per sequence and step
    reserved: Array  # share of its output for which a sequence holds cache: 1 when the engine never evicts


@dataclass(frozen=True, slots=True)
class Steady:
    """Seconds and counts; the parts of TTFT are kept apart because the regressor weighs them."""

    parts: Parts  # of the decode step
    batch: Array  # sequences decoding at once, whole instance
    room: Array  # sequences that cache and limits admit
    decode_s: Array
    prefill_alone_s: Array
    prefill_marginal_s: Array
    prefill_share: Array  # of a rank's time
    burst_s: Array
    queue_s: Array
    wait_s: Array  # for a slot, when more requests are in the system than fit
    backlog_s: Array  # more of it, behind longer queues than were measured; not in ttft_s, which is taught
    stall_s: Array  # of evicted requests, after their first token; not in tpot_s (too few measurements to teach it)
    ttft_s: Array
    tpot_s: Array
    e2e_s: Array
    requests_per_s: Array


def steady(t: Terms, shape: Shape, x: Traffic) -> Steady:
    """The closed form for every row of traffic."""
    room = np.maximum(np.minimum(x.max_sequences, x.kv_tokens / (x.isl + x.reserved * x.osl)), 1.0)
    wanted = np.where(x.kind == OPEN, 1.0, np.where(x.kind == OFFLINE, room, x.load))
    batch = np.minimum(wanted, room)
    is_open = np.broadcast_to(x.kind == OPEN, batch.shape)
    if is_open.all():
        batch = _open_batch(t, shape, x, room)
    elif is_open.any():
        few = (_only(t, is_open), _only(shape, is_open), _only(x, is_open), room[is_open])
        batch = batch.copy()
        batch[is_open] = _open_batch(*few)
    return _outcome(t, shape, x, room, batch)


def _only(columns: Columns, keep: NDArray[np.bool_]) -> Columns:
    """The kept rows; what is the same for all rows stays so."""
    values = [getattr(columns, f.name) for f in fields(columns)]
    return type(columns)(*(v if v.size == 1 else v[keep] for v in values))


def _open_batch(t: Terms, shape: Shape, x: Traffic, room: Array) -> Array:
    """Little's law: b = rate · life(b); grows until it settles or the room is full."""
    batch = np.ones_like(room)
    for _ in range(_LITTLE_ROUNDS):
        decode = decode_s(t, shape, batch, x.isl + x.osl / 2, x.drafted)
        marginal = _marginal_s(t, shape, x, batch, decode)
        busy = np.minimum(x.load * marginal / (shape.dp * shape.pp), 0.999)
        life = x.osl * decode / x.accepted / (1.0 - busy)
        batch = np.clip(0.5 * batch + 0.5 * x.load * life, np.minimum(1.0, room), room)
    return np.asarray(batch)


def _marginal_s(t: Terms, shape: Shape, x: Traffic, batch: Array, decode: Array) -> Array:
    """What one more prompt adds to its rank's time when its chunks ride along with the decodes."""
    chunk = np.minimum(x.isl, x.chunk_tokens)
    per_rank = np.maximum(batch / shape.dp / shape.pp, 0.0)
    mixed = Work(chunk, x.isl / 2, per_rank, x.isl + x.osl / 2, x.drafted)
    step = rank_step_s(t, shape, mixed, np.minimum(shape.dp, np.maximum(batch, 1.0)))
    return np.asarray(np.maximum(step - decode, 1e-6) * x.isl / chunk)


def _alone_s(t: Terms, shape: Shape, x: Traffic) -> Array:
    chunk = np.minimum(x.isl, x.chunk_tokens)
    work = Work(chunk, x.isl / 2, _ZERO, _ZERO, np.asarray(1.0))
    step = rank_step_s(t, shape, work, np.asarray(1.0))
    return np.asarray(step * np.ceil(x.isl / chunk))


def _outcome(t: Terms, shape: Shape, x: Traffic, room: Array, batch: Array) -> Steady:
    static = x.kind == STATIC
    parts = decode_parts(t, shape, batch, x.isl + x.osl / 2, x.drafted)
    decode = parts.total
    marginal = _marginal_s(t, shape, x, batch, decode)
    alone = _alone_s(t, shape, x)
    per_rank = batch / shape.dp
    others = np.where(static, 0.0, np.maximum(per_rank - np.where(x.kind == OFFLINE, 0.0, 1.0), 0.0)) / shape.pp
    synchrony = np.where(x.kind == CLOSED, t.burst, 0.0)
    stretch = others * (1.0 - synchrony / 2) * marginal
    tpot = decode / x.accepted + stretch / np.maximum(x.osl, 1.0)
    share = np.clip(stretch / np.maximum(x.osl * tpot, 1e-12), 0.0, 0.999)
    burst = np.maximum(per_rank - 1.0, 0.0) / 2 * np.minimum(marginal, alone)
    queue = np.minimum(share / (1.0 - share) / 2 * marginal + decode / 2, np.maximum(burst, decode / 2))
    prefilling = np.where(x.kind == OPEN, x.load * marginal / (shape.dp * shape.pp), 0.0)
    queue = np.maximum(queue, _prompts_ahead_s(prefilling, marginal))
    first = alone + np.where(static, 2.0 * burst, queue + t.burst * burst)
    # The fixed time of a closed loop holds what a start all at once costs; an open loop has the hand-over only.
    fixed = np.where(x.kind == OPEN, np.minimum(t.prefill_s, _HAND_OVER_S), t.prefill_s)
    first = first + np.where(static, 0.0, fixed)
    running = first + np.maximum(x.osl - 1.0, 0.0) * tpot
    wait, backlog, stall = _closed_wait_s(x, batch, running)
    asked = np.maximum(x.load * (running - queue) / room, prefilling)  # of what slots and prefills can carry
    wait = np.where(x.kind == OPEN, _overload_s(asked, room, running), wait)
    rate = np.where(x.kind == OPEN, x.load / np.maximum(asked, 1.0), batch / running)
    ttft = np.where(x.kind == OFFLINE, running, first + wait)
    rate = np.where(x.kind == OFFLINE, batch / (np.maximum(x.osl, 1.0) * tpot), rate)
    return Steady(
        parts, batch, room, decode, alone, marginal, share, burst, queue, wait, backlog, stall, ttft, tpot,
        running + wait + backlog + stall, rate,
    )  # fmt: skip


def _closed_wait_s(x: Traffic, batch: Array, running: Array) -> tuple[Array, Array, Array]:
    """Mean wait for a slot by Little's law, in three parts. Engines that admit optimistically evict those that grew:
    these wait again, after their first token, so only the prompts' share of the cache keeps new requests waiting. But
    they wait before all that are new, so their stall grows no more with a long queue, and the backlog does instead."""
    fresh = np.where(x.reserved < 1.0, x.isl / (x.isl + x.reserved * x.osl), 1.0)
    wait = np.where(x.kind == CLOSED, np.maximum(x.load - batch, 0.0) / batch * running, 0.0)
    evicted = wait * (1.0 - fresh)
    stall = np.minimum(wait, (LONGEST_QUEUE - 1.0) * running) * (1.0 - fresh)
    return wait * fresh, evicted - stall, stall


def _prompts_ahead_s(prefilling: Array, marginal: Array) -> Array:
    """Mean wait behind other prompts that arrive at random (M/D/1); `prefilling` is their share of a rank's time."""
    busy = np.minimum(prefilling, 0.98)
    return np.asarray(busy / (1.0 - busy) / 2 * marginal)


def _overload_s(asked: Array, room: Array, running: Array) -> Array:
    """Mean wait of an open loop for a slot or a prefill: erlang-like below saturation, one minute's backlog above."""
    load = np.minimum(asked, 1e4)
    queued = np.minimum(load, 1.0) ** 8 / np.maximum(1.0 - load, 0.02) * running / room
    return np.asarray(queued + np.maximum(load - 1.0, 0.0) * 30.0)
