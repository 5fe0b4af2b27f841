"""Fit the smooth correction of mean TTFT: kernel ridge regression on the rows that anchor it best.

Anchors are chosen by a pivoted Cholesky decomposition of the kernel matrix: each is the row that the ones before
explain least, so repeated measurements share one.
"""

import numpy as np
from numpy.typing import NDArray

from foundry_sim.learned.coordinates import coordinates
from foundry_sim.learned.regressor import LIMIT
from foundry_sim.learned.smoother import Smoother
from foundry_sim.physics.terms import Array
from foundry_sim.train.dataset import curve_weight
from foundry_sim.train.fit_residual import Prepared

ANCHORS = 500
SHARPNESS = 0.3
_RIDGE = 0.05
# A percentage error weighs a prediction twice the truth as 100 % and half of it as 50 %: the best guess is lower.
_OFFSET = -0.05


def places(p: Prepared) -> NDArray[np.float32]:
    f = p.data.frame
    return coordinates(p.terms, f.shape, f.traffic, p.state, f.context)


def smoother(p: Prepared, keep: NDArray[np.bool_]) -> Smoother:
    rows = keep & p.usable("ttft") & p.data.current
    at = places(p)[rows].astype(np.float64)
    target = np.clip(p.residual["ttft"][rows], -LIMIT, LIMIT)
    weight = curve_weight(p.data, "ttft")[rows]
    anchors = at[_pivots(at)]
    near, between = _kernel(at, anchors), _kernel(anchors, anchors)
    weighted = near * (weight / weight.mean())[:, None]
    system = weighted.T @ near + _RIDGE * between + 1e-7 * np.eye(len(anchors))
    found = np.linalg.solve(system, weighted.T @ target)
    return Smoother(anchors.astype(np.float32), np.round(found, 4).astype(np.float32), SHARPNESS, _OFFSET)


def _pivots(at: Array) -> list[int]:
    left = np.ones(len(at))
    factor = np.zeros((ANCHORS, len(at)))
    chosen: list[int] = []
    for step in range(min(ANCHORS, len(at))):
        place = int(np.argmax(np.round(left, 9)))
        if left[place] < 1e-4:
            break
        chosen.append(place)
        row = _kernel(at[place : place + 1], at)[0] - factor[:step, place] @ factor[:step]
        factor[step] = row / np.sqrt(left[place])
        left = np.maximum(left - factor[step] ** 2, 0.0)
    return chosen


def _kernel(a: Array, b: Array) -> Array:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * a @ b.T
    return np.asarray(1.0 / (1.0 + SHARPNESS * np.maximum(squares, 0.0)))
