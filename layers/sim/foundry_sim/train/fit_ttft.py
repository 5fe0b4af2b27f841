"""Fit the smooth corrections of TTFT (mean, and shape of its distribution): kernel ridge regression on anchors.

Anchors are rows chosen by a pivoted Cholesky decomposition of the kernel matrix: each is the row that the ones before
explain least, so repeated measurements share one.
"""

import numpy as np
from numpy.typing import NDArray

from foundry_sim.learned.coordinates import MEDIAN, coordinates
from foundry_sim.learned.regressor import LIMIT
from foundry_sim.learned.smoother import FADE, Smoother
from foundry_sim.outcome import ttft_shape
from foundry_sim.physics.terms import Array
from foundry_sim.train.dataset import curve_weight
from foundry_sim.train.fit_residual import Prepared

ANCHORS = 800
SHARPNESS = 0.3
_TAIL = (100, 0.1, 0.05, 0.0)  # anchors, sharpness, ridge, offset: few runs, so smoother
_MEDIANS = 0.5  # weight of a measured median where means are asked for
_RIDGE = 0.05
_OFFSET = -0.05  # far from all anchors: the closed form errs to the slow side on devices and sources it does not know
_REWEIGHTED = 3  # times, when errors are to count linearly


def places(p: Prepared) -> NDArray[np.float32]:
    f = p.data.frame
    return coordinates(p.terms, f.shape, f.traffic, p.state, f.context)


def smoother(p: Prepared, keep: NDArray[np.bool_]) -> Smoother:
    """The correction of the mean; rows with a median join at a distance, so that they say how configurations differ."""
    rows, medians = keep & p.usable("ttft") & p.data.current, keep & np.isfinite(log_seconds(p, "ttft_ms_p50"))
    at = places(p).astype(np.float64)
    beside = at[medians]
    beside[:, -1] = MEDIAN
    weight = curve_weight(p.data, "ttft")
    return _ridge(
        np.vstack([at[rows], beside]),
        np.concatenate(
            [
                np.clip(p.residual["ttft"][rows], -LIMIT, LIMIT),
                np.clip((log_seconds(p, "ttft_ms_p50") - np.log(p.state.ttft_s))[medians], -2 * LIMIT, 2 * LIMIT),
            ]
        ),
        np.concatenate([weight[rows], _MEDIANS * weight[medians]]),
        (ANCHORS, SHARPNESS, _RIDGE, _OFFSET),
    )


def tail(p: Prepared, keep: NDArray[np.bool_], mean: Smoother) -> Smoother:
    """Corrections of median / mean and p99 / mean, from the runs that published these."""
    median, last = log_seconds(p, "ttft_ms_p50"), log_seconds(p, "ttft_ms_p99")
    rows = keep & np.isfinite(median) & np.isfinite(last)
    known = np.where(np.isfinite(p.data.targets["ttft"]), p.data.targets["ttft"], _exactly(p, mean))
    shape = ttft_shape(p.state)
    target = np.stack([median - known - shape[0], last - known - shape[1]], axis=1)[rows]
    at = places(p)[rows].astype(np.float64)
    return _ridge(at, np.clip(target, -2.0, 2.0), np.ones(len(at)), _TAIL)


def corrected(p: Prepared, mean: Smoother) -> Array:
    """log seconds of the mean, closed form and correction."""
    return np.asarray(np.log(p.state.ttft_s) + np.clip(mean.predict(places(p)), -LIMIT, LIMIT))


def _exactly(p: Prepared, mean: Smoother) -> Array:
    """As `corrected`, in 64 bit: what is fitted must not depend on how a processor adds in 32."""
    at, anchors = places(p).astype(np.float64), mean.anchors.astype(np.float64)
    found = _kernel(at, anchors, mean.sharpness) @ mean.coefficients.astype(np.float64) + mean.offset
    return np.asarray(np.log(p.state.ttft_s) + np.clip(found, -LIMIT, LIMIT))


def log_seconds(p: Prepared, name: str) -> Array:
    """Measured log seconds, NaN where the source does not say."""
    return np.log(np.array([getattr(m, name) or np.nan for m in p.data.rows], np.float64) / 1e3)


def _ridge(at: Array, target: Array, weight: Array, settings: tuple[int, float, float, float]) -> Smoother:
    count, sharpness, ridge, offset = settings
    if not len(at):  # everything that says something was left out
        return Smoother(at.astype(np.float32), target.astype(np.float32), sharpness, offset)
    anchors = at[_pivots(at, count, sharpness)]
    found = coefficients(at, target - offset, weight, anchors, (sharpness, ridge))
    return Smoother(anchors.astype(np.float32), found, sharpness, offset)


def coefficients(
    at: Array, target: Array, weight: Array, anchors: Array, settings: tuple[float, float], robust: float = np.inf
) -> NDArray[np.float32]:
    """Of the anchors, by weighted ridge regression; `settings` are sharpness and ridge. Errors beyond `robust` count
    linearly (pseudo-Huber, by reweighting)."""
    sharpness, ridge = settings
    near, between = _kernel(at, anchors, sharpness), _kernel(anchors, anchors, sharpness)
    penalty, weight = ridge * between + 1e-7 * np.eye(len(anchors)), weight / weight.mean()
    found = _solve(near, penalty, target, weight)
    for _ in range(_REWEIGHTED if robust < np.inf else 0):
        error = (target - near @ found) / robust
        found = _solve(near, penalty, target, weight / np.sqrt(1.0 + error**2))
    return np.round(found, 4).astype(np.float32)


def _solve(near: Array, penalty: Array, target: Array, weight: Array) -> Array:
    weighted = near * weight[:, None]
    return np.asarray(np.linalg.solve(weighted.T @ near + penalty, weighted.T @ target))


def _pivots(at: Array, count: int, sharpness: float) -> list[int]:
    left = np.ones(len(at))
    factor = np.zeros((count, len(at)))
    chosen: list[int] = []
    for step in range(min(count, len(at))):
        place = int(np.argmax(np.round(left, 9)))
        if left[place] < 1e-4:
            break
        chosen.append(place)
        row = _kernel(at[place : place + 1], at, sharpness)[0] - factor[:step, place] @ factor[:step]
        factor[step] = row / np.sqrt(left[place])
        left = np.maximum(left - factor[step] ** 2, 0.0)
    return chosen


def _kernel(a: Array, b: Array, sharpness: float) -> Array:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * a @ b.T
    return np.asarray((1.0 + sharpness / FADE * np.maximum(squares, 0.0)) ** -float(FADE))
