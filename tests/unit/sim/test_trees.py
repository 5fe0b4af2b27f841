"""The NumPy evaluator answers what XGBoost answers."""

import json

import numpy as np
import pytest
from foundry_sim.learned.trees import complete

xgb = pytest.importorskip("xgboost")


@pytest.mark.parametrize("depth", [1, 3, 5])
def test_forest_equals_xgboost(depth: int) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(500, 6)).astype(np.float32)
    rows[:, 3] = np.round(rows[:, 3])  # ties with thresholds
    target = rows[:, 0] * rows[:, 1] + rows[:, 3]
    settings = {"max_depth": depth, "eta": 0.2, "nthread": 1, "seed": 1, "objective": "reg:absoluteerror"}
    booster = xgb.train(settings, xgb.DMatrix(rows, target), 40)
    base = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]
    forest = complete(
        [json.loads(t) for t in booster.get_dump(dump_format="json")], depth, float(str(base).strip("[]"))
    )
    rows = np.vstack([rows] * 5)  # more than are evaluated at once
    for varied in (range(6), [0, 3], []):
        some = np.repeat(rows[:1], len(rows), axis=0)
        some[:, varied] = rows[:, varied]
        expected = booster.predict(xgb.DMatrix(some))
        np.testing.assert_allclose(forest.predict(np.ascontiguousarray(some.T)), expected, atol=2e-5)
