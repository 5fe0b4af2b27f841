"""What wrong predictions cost: pick a configuration by prediction, pay by measurement.

A question is a model, a device and lengths with several measured configurations and loads; its service levels are
bounds on mean TPOT and TTFT. The pick is the search's: of the configurations whose cautious bounds keep the levels the
one with the highest predicted throughput per device; where none does, the one that misses least, which is not promised.
Regret is the throughput it loses against the best that really kept them; a violation is a pick that really broke one.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from foundry_sim.physics.terms import Array
from foundry_sim.search.judge import CAUTION, cautious, excess
from foundry_sim.train.measurement import Measurement

_TPOT_MS = (10.0, 15.0, 20.0, 30.0, 50.0)
_TTFT_MS = (300.0, 1000.0, 3000.0)
_LEAST = 4  # configurations and loads that make a question


@dataclass(frozen=True, slots=True)
class Pick:
    """The answer to one question; `regret` is None where the levels were broken."""

    promised: bool
    regret: float | None


@dataclass(frozen=True, slots=True)
class Decisions:
    """`regret` is a mean over picks that kept their levels, `violations` a share of picks."""

    count: int
    regret: float
    violations: float


def summary(picks: Sequence[Pick]) -> Decisions:
    kept = [pick.regret for pick in picks if pick.regret is not None]
    count = len(picks)
    return Decisions(count, float(np.mean(kept or [0.0])), 1.0 - len(kept) / max(count, 1))


def decide(
    rows: Sequence[Measurement], error: Mapping[str, Array], width: Mapping[str, Array], keep: NDArray[np.bool_],
    caution: float = CAUTION,
) -> list[Pick]:  # fmt: skip
    """A pick per question among the rows of `keep`; `error` and `width` hold log errors (predicted / measured) and
    half-widths (log) of the heads tpot and ttft."""
    real = np.array([[m.tpot_ms_mean or np.nan, m.ttft_ms_mean or np.nan] for m in rows])
    heads = ("tpot", "ttft")
    expected = real * np.exp(np.stack([error[h] for h in heads], axis=1))
    upper = expected * np.exp(np.stack([width[h] for h in heads], axis=1))
    usable = keep & np.isfinite(upper).all(axis=1)
    bounds = cautious(expected, expected, upper, caution)
    return [
        _pick([rows[i] for i in members], levels, real[members], expected[members], bounds[members])
        for members, levels in _questions(rows, usable, real)
    ]


def _questions(
    rows: Sequence[Measurement], usable: NDArray[np.bool_], real: Array
) -> Iterator[tuple[list[int], tuple[float, float]]]:
    """Rows of one model, device and lengths, with each pair of levels that one of them met."""
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i in np.flatnonzero(usable).tolist():
        groups[(rows[i].model, rows[i].device, rows[i].isl, rows[i].osl)].append(i)
    for members in groups.values():
        for levels in product(_TPOT_MS, _TTFT_MS):
            if len(members) >= _LEAST and (real[members] <= levels).all(axis=1).any():
                yield members, levels


def _pick(
    members: Sequence[Measurement], levels: tuple[float, float], real: Array, expected: Array, bounds: Array
) -> Pick:
    missed = excess(bounds[:, 0], levels[0]) + excess(bounds[:, 1], levels[1])
    best = int(np.lexsort((-_throughput(members, expected), missed))[0])
    meets = np.asarray((real <= levels).all(axis=1))
    gain = _throughput(members, real)
    regret = 1.0 - float(gain[best] / gain[meets].max()) if meets[best] else None
    return Pick(bool(missed[best] <= 0.0), regret)


def _throughput(members: Sequence[Measurement], times: Array) -> Array:
    """Output tokens/s per device of closed loops with these mean TPOT and TTFT (ms)."""
    load, osl, devices = np.array([(m.load, m.osl, m.tp * m.dp * m.pp) for m in members]).T
    return np.asarray(load * osl / (times[:, 1] + (osl - 1) * times[:, 0]) / devices)
