"""Where a request lies for the first-token correction: logarithms and flags, scaled so that one unit is one step.

A scale is the difference that makes two rows only loosely alike, for example a factor of e in prompt length. Names of
models and devices do not appear; what an unseen one shares with the measured ones does.
"""

import numpy as np
from numpy.typing import NDArray

from foundry_sim.learned.features import ENGINES, Context
from foundry_sim.physics.efficiency import TODAY_DAYS
from foundry_sim.physics.steady import Steady, Traffic
from foundry_sim.physics.step import Shape
from foundry_sim.physics.terms import Array, Terms

_MONTHS = 62.0  # days that software changes by as much as a factor of e in length
_MEASURED = 67.0
MEDIAN = 2.0


def coordinates(t: Terms, shape: Shape, x: Traffic, s: Steady, known: Context) -> NDArray[np.float32]:
    """Rows × coordinates. The last is the statistic: zero asks for the mean, training adds medians at MEDIAN."""
    found = [*_load(shape, x, s), *_model(t, x, s), *_software(known, x), np.zeros_like(s.tpot_s)]
    table = np.empty((len(s.tpot_s), len(found)), dtype=np.float32)
    for place, values in enumerate(found):
        table[:, place] = values
    return table


def _log(values: Array) -> Array:
    return np.asarray(np.log(np.maximum(values, 1e-9)))


def _load(shape: Shape, x: Traffic, s: Steady) -> list[Array]:
    per_rank = s.batch / shape.dp
    load = np.where(x.load > 0, x.load, s.batch)
    return [
        _log(x.isl) - 7.0,
        (_log(x.osl) - 7.0) / 2.0,
        (_log(load) - 3.0) / 1.5,
        _log(np.maximum(load / np.minimum(s.room, 1e9), 0.3)) / 0.5,
        s.prefill_share / 0.3,
        (_log(per_rank * s.prefill_marginal_s) + 1.0) / 1.5,
        _log(shape.tp) / 2.0,
        _log(shape.dp),
        _log(shape.ep) / 2.0,
    ]


def _model(t: Terms, x: Traffic, s: Steady) -> list[Array]:
    return [
        _log(s.prefill_alone_s) + 2.5,
        (_log(s.prefill_marginal_s) + 3.0) / 1.5,
        (_log(s.decode_s) + 4.5) / 1.5,
        t.layers / 30.0 - 2.0,
        np.asarray(t.experts > 0, np.float64),
        1.5 * (1.0 - t.kv_sharded),
        _log(t.hidden) - 8.5,
        t.weight_bytes * 2.0,
        t.moe_bytes,
        t.kv_bytes / 2.0,
        _log(t.memory_bandwidth) - 29.0,
        x.drafted / 1.4,
    ]


def _software(known: Context, x: Traffic) -> list[Array]:
    undated = np.isnan(known.measured)
    days = _first(known.days, known.measured)
    measured = _first(known.measured, known.days)
    engines = [2.0 * (known.engine == place) for place in range(len(ENGINES))]
    return [
        (days - TODAY_DAYS) / _MONTHS,
        (measured - TODAY_DAYS) / _MEASURED,
        undated / 0.7,
        x.kind * 2.0,
        *(np.asarray(e) for e in engines),
    ]


def _first(values: Array, other: Array) -> Array:
    """The value, else the other, else today."""
    filled = np.where(np.isnan(values), other, values)
    return np.asarray(np.where(np.isnan(filled), TODAY_DAYS, filled))
