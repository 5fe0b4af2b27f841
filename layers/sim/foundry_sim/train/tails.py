"""Held-out errors of TTFT's median and 99th percentile, where sources publish these."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundry_sim.learned.regressor import error_size, lean, with_distance
from foundry_sim.learned.regressor import load as load_regressor
from foundry_sim.learned.smoother import Smoother
from foundry_sim.outcome import ttft_shape
from foundry_sim.physics.terms import Array
from foundry_sim.train.dataset import Dataset
from foundry_sim.train.fit_residual import Prepared
from foundry_sim.train.fit_ttft import corrected, log_seconds, places, smoother, tail
from foundry_sim.train.heldout import folds

NAMES = {"p50": "ttft_ms_p50", "p99": "ttft_ms_p99"}


def held_out(data: Dataset, tables: dict[str, dict[str, Any]], split: str) -> dict[str, Array]:
    """Log errors by percentile, NaN where not measured or never left out; all models refitted without the fold."""
    fold = folds(data.rows, split)
    found = {name: np.full(len(data.rows), np.nan) for name in NAMES}
    for number in sorted(set(fold.tolist()) - {-1}):
        out = fold == number
        for name, error in _errors(Prepared(data, tables[f"{split}/{number}"]), out):
            found[name][out] = error[out]
    return found


def _errors(p: Prepared, out: NDArray[np.bool_]) -> Iterator[tuple[str, Array]]:
    mean = smoother(p, ~out)
    median, last = tail(p, ~out, mean).predict(places(p)).T
    shape, middle, leaning = ttft_shape(p.state), corrected(p, mean), _lean(p, mean)
    predicted = {"p50": middle + np.minimum(shape[0] + median, -leaning), "p99": middle + shape[1] + last}
    for name, value in predicted.items():
        yield name, value - log_seconds(p, NAMES[name])


def _lean(p: Prepared, mean: Smoother) -> Array:
    """Of the mean, by the shipped forest of error sizes: few of these runs have a mean that could teach one by fold."""
    shipped = load_regressor()
    if shipped is None:
        return np.zeros(len(p.data.rows))
    distance = mean.predict_near(places(p))[1]
    return lean(error_size(shipped.heads["ttft"].scale.predict(with_distance(p.features, distance))))
