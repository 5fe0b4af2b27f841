"""More clients never make a closed loop faster for each of them, nor slower for all of them together."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from foundry_sim.calibration import Calibration
from foundry_sim.facts import devices
from foundry_sim.facts.architecture import names, resolve
from foundry_sim.predict_io import predict_rows
from foundry_sim.search.launch import ENGINES
from numpy.typing import NDArray

CURVES = 400
CLIENTS = [2**power for power in range(10)]
LENGTHS = [(128, 128), (1000, 200), (2000, 50), (8000, 1000)]
# The closed form is monotone; the learned correction bends it a little. Over 1,367 curves from another seed the worst
# step was 0.919 (TPOT), 0.884 (TTFT) and 0.939 (throughput); 1.2, 0.3 and 0.1 % of the curves had one below 0.95.
WORST = {"tpot": 0.90, "ttft": 0.97, "throughput": 0.85}
SMALL, SHARE_BEYOND_SMALL = 0.95, 0.03


def _curve(random: np.random.Generator, models: list[str]) -> list[dict[str, Any]]:
    isl, osl = LENGTHS[random.integers(len(LENGTHS))]
    row = {
        "id": "", "model": str(random.choice(models)), "device": str(random.choice(devices.names())),
        "engine": str(random.choice(list(ENGINES))), "tp": int(random.choice([1, 2, 4, 8])), "isl": isl, "osl": osl,
    }  # fmt: skip
    return [{**row, "load": {"kind": "closed", "concurrency": clients}} for clients in CLIENTS]


@cache
def _steps(method: Any) -> dict[str, NDArray[np.float64]]:
    """Of every curve that fits, the smallest ratio from one number of clients to the double, by what is predicted."""
    random, models = np.random.default_rng(7), [name for name in names() if resolve(name).task == "generate"]
    rows = [row for _ in range(CURVES) for row in _curve(random, models)]
    found = predict_rows(rows, method, Calibration())
    curves = [found[place : place + len(CLIENTS)] for place in range(0, len(found), len(CLIENTS))]
    values = {
        name: np.array([[read(p) for p in curve] for curve in curves if all(p.error is None and p.fits for p in curve)])
        for name, read in READ.items()
    }
    return {name: (curve[:, 1:] / curve[:, :-1]).min(axis=1) for name, curve in values.items()}


READ = {
    "tpot": lambda p: p.tpot_ms.mean,
    "ttft": lambda p: p.ttft_ms.mean,
    "throughput": lambda p: p.output_tokens_per_s,
}


@pytest.mark.parametrize("name", READ)
def test_the_closed_form_is_monotone(name: str) -> None:
    steps = _steps("heuristic")[name]
    assert len(steps) > CURVES / 2 and steps.min() > 1 - 1e-9


@pytest.mark.parametrize("name", READ)
def test_the_correction_bends_it_slightly(name: str) -> None:
    steps = _steps("regressor")[name]
    assert len(steps) > CURVES / 2 and steps.min() > WORST[name]
    assert (steps < SMALL).mean() <= SHARE_BEYOND_SMALL
