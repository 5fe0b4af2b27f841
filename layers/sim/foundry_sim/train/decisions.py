"""What wrong predictions cost: pick a configuration by prediction, pay by measurement.

A question is a model, a device and lengths with several measured configurations and loads; its service levels are
bounds on mean TPOT and TTFT. The pick is the configuration with the highest predicted throughput per device whose
upper bounds meet the levels. Regret is the throughput it loses against the best that really met them; a violation is a
pick that really missed one.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from foundry_sim.physics.terms import Array
from foundry_sim.train.measurement import Measurement

_TPOT_MS = (10.0, 15.0, 20.0, 30.0, 50.0)
_TTFT_MS = (300.0, 1000.0, 3000.0)


@dataclass(frozen=True, slots=True)
class Decisions:
    questions: int
    regret: float  # mean over questions answered with a pick that met its levels
    violations: float  # share of answered questions
    unanswered: float  # share of answerable questions for which no configuration was trusted


def decide(rows: Sequence[Measurement], tpot: Array, ttft: Array, tpot_hi: Array, ttft_hi: Array) -> Decisions:
    """Log errors (predicted / measured) of the mean and of the bound used for feasibility; NaN rows are left out."""
    usable: list[int] = np.flatnonzero(np.isfinite(tpot) & np.isfinite(ttft)).tolist()
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i in usable:
        m = rows[i]
        groups[(m.model, m.device, m.isl, m.osl)].append(i)
    regrets: list[float] = []
    asked = violated = silent = 0
    for members in groups.values():
        if len(members) < 4:
            continue
        for levels in product(_TPOT_MS, _TTFT_MS):
            result = _answer(rows, members, levels, (tpot, ttft, tpot_hi, ttft_hi))
            if result is None:
                continue
            asked += 1
            regret, missed = result
            silent += regret is None and not missed
            violated += missed
            regrets += [regret] if regret is not None else []
    answered = max(asked - silent, 1)
    return Decisions(asked, float(np.mean(regrets or [0.0])), violated / answered, silent / max(asked, 1))


def _answer(
    rows: Sequence[Measurement],
    members: list[int],
    levels: tuple[float, float],
    errors: tuple[Array, Array, Array, Array],
) -> tuple[float | None, bool] | None:
    """(regret or None, violated), or None when no measured configuration meets the levels."""
    real = np.array([[rows[i].tpot_ms_mean, rows[i].ttft_ms_mean] for i in members], float)
    meets = np.asarray((real <= levels).all(axis=1))
    if not meets.any():
        return None
    tpot, ttft, tpot_hi, ttft_hi = (np.exp(e[members]) for e in errors)
    trusted = np.asarray((real[:, 0] * tpot_hi <= levels[0]) & (real[:, 1] * ttft_hi <= levels[1]))
    if not trusted.any():
        return None, False
    gain = np.array([_throughput(rows[i], *real[k]) for k, i in enumerate(members)])
    expected = np.array(
        [_throughput(rows[i], real[k, 0] * tpot[k], real[k, 1] * ttft[k]) for k, i in enumerate(members)]
    )
    pick = int(np.argmax(np.where(trusted, expected, -1.0)))
    if not meets[pick]:
        return None, True
    return 1.0 - float(gain[pick]) / float(gain[meets].max()), False


def _throughput(m: Measurement, tpot_ms: float, ttft_ms: float) -> float:
    return m.load * m.osl / (ttft_ms + (m.osl - 1) * tpot_ms) / (m.tp * m.dp * m.pp)
