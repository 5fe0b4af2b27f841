"""Fit the smooth half of the TPOT correction; the other half is the forest.

Its anchors are those of TTFT's correction, so that predicting both computes one kernel. Trees and kernels err
differently: their mean is better than either on left-out configurations, models, devices and dates.
"""

import numpy as np
from numpy.typing import NDArray

from foundry_sim.learned.regressor import LIMIT
from foundry_sim.learned.smoother import Smoother
from foundry_sim.physics.terms import Array
from foundry_sim.train.dataset import curve_weight
from foundry_sim.train.fit_residual import Prepared
from foundry_sim.train.fit_ttft import coefficients, places

_RIDGE = 0.05


def beside(p: Prepared, keep: NDArray[np.bool_], first: Smoother) -> Smoother:
    """The TPOT correction on the anchors, and with the sharpness and offset, of TTFT's."""
    rows = keep & p.usable("tpot") & p.data.current
    target: Array = np.clip(p.residual["tpot"][rows], -LIMIT, LIMIT) - first.offset
    at, anchors = places(p)[rows].astype(np.float64), first.anchors.astype(np.float64)
    weight = curve_weight(p.data, "tpot")[rows]
    found = coefficients(at, target, weight, anchors, (first.sharpness, _RIDGE))
    return Smoother(first.anchors, found, first.sharpness, first.offset)
