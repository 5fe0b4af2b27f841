"""Train the forests on what the physics leaves, and calibrate their intervals on left-out groups."""

import json
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from foundry_sim.learned.features import matrix
from foundry_sim.learned.regressor import HEADS, LIMIT, Head, Regressor, signature
from foundry_sim.learned.trees import Forest, complete
from foundry_sim.physics.steady import Steady, steady
from foundry_sim.physics.terms import Array, Terms
from foundry_sim.train.dataset import Dataset, curve_weight, model_value, timed_whole
from foundry_sim.train.fit_physics import apply

DEPTH, ROUNDS = 5, 80
_MEAN = {
    "eta": 0.12,
    "subsample": 0.7,
    "colsample_bytree": 0.5,
    "min_child_weight": 2,
    "reg_lambda": 2.0,
    "objective": "reg:quantileerror",
    "quantile_alpha": 0.5,
}
_SCALE = {"eta": 0.06, "subsample": 0.7, "colsample_bytree": 0.4, "min_child_weight": 20, "reg_lambda": 5.0}
_SCALE_DEPTH, _SCALE_ROUNDS = 2, 60
_COMMON = {"nthread": 1, "seed": 7, "tree_method": "hist", "verbosity": 0}


class Prepared:
    """A dataset under one physics table: features, closed-form state and log residuals by head."""

    def __init__(self, data: Dataset, fitted: dict[str, Any]) -> None:
        self.data = data
        f = data.frame
        self.terms: Terms = apply(fitted, data)
        self.state: Steady = steady(self.terms, f.shape, f.traffic)
        self.features: NDArray[np.float32] = matrix(self.terms, f.shape, f.traffic, self.state, f.context)
        whole = timed_whole(data.rows)
        self.residual = {h: data.targets[h] - model_value(h, self.state, whole) for h in HEADS}

    def usable(self, head: str) -> NDArray[np.bool_]:
        return np.isfinite(self.residual[head])


def mean_forest(p: Prepared, head: str, keep: NDArray[np.bool_]) -> Forest:
    rows = keep & p.usable(head)
    target = np.clip(p.residual[head][rows], -LIMIT, LIMIT)
    return _boost(p.features[rows], target, curve_weight(p.data, head)[rows], _MEAN, DEPTH, ROUNDS)


def scale_forest(features: NDArray[np.float32], error: Array, weight: Array) -> Forest:
    """Predicts the log of the absolute error that held-out rows showed; the last feature, distance, only raises it."""
    target = np.log(np.abs(error) + 0.01)
    farther = {"monotone_constraints": str((*[0] * (features.shape[1] - 1), 1))}
    return _boost(features, target, weight, _SCALE | farther, _SCALE_DEPTH, _SCALE_ROUNDS)


def known_facts(p: Prepared, keep: NDArray[np.bool_]) -> dict[str, frozenset[float]]:
    current = keep & p.data.current
    return {
        "architectures": frozenset(signature(p.terms)[current].tolist()),
        "devices": frozenset(p.data.frame.context.device[current].tolist()),
        "engines": frozenset(e for e in p.data.frame.context.engine[current].tolist() if e == e),
    }


def regressor(p: Prepared, heads: dict[str, Head]) -> Regressor:
    return Regressor(heads, **known_facts(p, np.ones(len(p.data.rows), bool)))


def _boost(
    features: NDArray[np.float32], target: Array, weight: Array, settings: dict[str, Any], depth: int, rounds: int
) -> Forest:
    matrix_ = xgb.DMatrix(features, target, weight=weight)
    booster = xgb.train({**settings, **_COMMON, "max_depth": depth}, matrix_, rounds)
    base = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]
    dumped = [json.loads(tree) for tree in booster.get_dump(dump_format="json")]
    return complete(dumped, depth, float(str(base).strip("[]")))
