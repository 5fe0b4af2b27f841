"""How far configurations under load are from measured ones: squared distances, zero for the same, infinite across
models, devices and kinds of load. A point counts e^-1/2 at distance one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.precision import Precision
from foundry_sim.physics.terms import Array
from foundry_sim.requests import Case

# What distance one is: factors of load and of lengths, and of each way to split. Eight devices by tensor parallelism
# say little of eight copies of attention.
SCALES = {"load": log(4.0), "isl": log(4.0), "osl": log(4.0), "tp": 1.0, "pp": 1.0, "dp": 1.0, "ep": 1.0}
ANY_VERSION = "*"
_OTHER = {
    "model": inf, "device": inf, "kind": inf, "engine": 2.5, "engine_version": 0.5, "precision": 1.5, "drafts": 1.5,
}  # fmt: skip


class Traits(NamedTuple):
    """What is equal or not. `drafts`: whether it speculates; `ANY_VERSION` equals all versions."""

    model: Architecture
    device: str
    kind: str
    engine: str
    engine_version: str | None
    precision: Precision
    drafts: bool


@dataclass(frozen=True, slots=True)
class Places:
    """n configurations: distinct traits, which of them each has (n), and its logs in units of SCALES (n, scales)."""

    traits: tuple[Traits, ...]
    index: NDArray[np.intp]
    numbers: Array


def places(cases: Sequence[Case]) -> Places:
    """Where resolved requests stand."""
    seen: dict[Traits, int] = {}
    index = [seen.setdefault(_traits(c), len(seen)) for c in cases]
    return Places(tuple(seen), np.array(index, np.intp), np.stack([numbers(**_values(c)) for c in cases]))


def numbers(**values: Array | float) -> Array:
    """Logs of load, lengths and splits in units of SCALES, along the last axis; values broadcast."""
    columns = np.broadcast_arrays(*(values[name] for name in SCALES))
    logs: Array = np.log(np.maximum(np.stack(columns, axis=-1), 1e-3))
    return np.asarray(logs / np.array(list(SCALES.values())))


def apart(asked: Places, measured: Places) -> Array:
    """Squared distances, shape (measured, asked)."""
    a, b = asked.numbers, measured.numbers
    near = np.square(b).sum(axis=1)[:, None] + np.square(a).sum(axis=1) - 2.0 * b @ a.T
    other = np.array([[_difference(one, other) for other in asked.traits] for one in measured.traits])
    return np.asarray(np.maximum(near, 0.0) + other[np.ix_(measured.index, asked.index)])


@lru_cache(maxsize=512)
def nameless(a: Architecture) -> Architecture:
    """Whatever it is called: an alias, a path and a registered config may mean one model."""
    return replace(a, name="")


def _traits(c: Case) -> Traits:
    r = c.request
    model, drafts = nameless(c.architecture), bool(r.spec_decode)
    return Traits(model, c.device.name, r.load.kind, c.engine, r.engine_version, c.precision, drafts)


def _values(c: Case) -> dict[str, float]:
    r = c.request
    return {"load": r.load.amount, "isl": r.isl, "osl": r.osl, "tp": c.tp, "pp": c.pp, "dp": c.dp, "ep": c.ep}


def _difference(a: Traits, b: Traits) -> float:
    if ANY_VERSION in (a.engine_version, b.engine_version):
        a, b = a._replace(engine_version=None), b._replace(engine_version=None)
    differing = [name for name, one, other in zip(Traits._fields, a, b, strict=True) if one != other]
    return sum(_OTHER[name] ** 2 for name in differing)
