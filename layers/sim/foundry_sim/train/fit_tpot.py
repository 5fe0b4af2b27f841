"""Fit the TPOT correction: kernel ridge regression on TTFT's anchors, so that predicting both computes one kernel.

Sources disagree by a third about like configurations, and what nobody recorded (speculation, replicas) is off by more:
large errors count linearly, or single runs would bend their neighbours.
"""

import numpy as np
from numpy.typing import NDArray

from foundry_sim.learned.regressor import LIMIT
from foundry_sim.learned.smoother import Smoother
from foundry_sim.physics.terms import Array
from foundry_sim.train.dataset import curve_weight
from foundry_sim.train.fit_residual import Prepared
from foundry_sim.train.fit_ttft import coefficients, places

_RIDGE = 0.2  # a quarter of it bends predictions: one curve in twenty falls by 5 % somewhere when its clients double
_ROBUST = 0.1  # log error


def beside(p: Prepared, keep: NDArray[np.bool_], first: Smoother) -> Smoother:
    """The TPOT correction on the anchors, and with the sharpness and offset, of TTFT's."""
    rows = keep & p.usable("tpot") & p.data.current
    target: Array = np.clip(p.residual["tpot"][rows], -LIMIT, LIMIT) - first.offset
    at, anchors = places(p)[rows].astype(np.float64), first.anchors.astype(np.float64)
    weight = curve_weight(p.data, "tpot")[rows]
    found = coefficients(at, target, weight, anchors, (first.sharpness, _RIDGE), _ROBUST)
    return Smoother(first.anchors, found, first.sharpness, first.offset)
