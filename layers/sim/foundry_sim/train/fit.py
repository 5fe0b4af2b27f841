"""`foundry sim train`: the shipped model files from the committed measurements, bit for bit.

Order: the efficiency constants (least squares), the forests on what they leave, then interval scales and trust from the
committed held-out errors (`foundry sim validate --refit` writes those).
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundry_sim.learned.regressor import HEADS, MODELS, Head, save
from foundry_sim.learned.smoother import Smoother
from foundry_sim.physics.terms import Array
from foundry_sim.train import heldout
from foundry_sim.train.dataset import curve_weight, fully_known, load
from foundry_sim.train.fit_physics import PhysicsFit
from foundry_sim.train.fit_residual import Prepared, mean_forest, regressor, scale_forest
from foundry_sim.train.fit_tpot import beside
from foundry_sim.train.fit_ttft import smoother, tail

_COVERAGE = 0.90
_TRUSTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_FAR = ("model", "device")


def train(target: Path | None = None) -> Iterator[str]:
    """Write efficiency.json and residual.npz into `target`; yields a line per step."""
    folder = target or MODELS
    folder.mkdir(parents=True, exist_ok=True)
    clean = load(known_speculation=True)
    yield f"{len(clean.rows)} measurements"
    fitted = heldout.rounded(PhysicsFit(clean, np.ones(len(clean.rows), bool)).run(heldout.ROUNDS))
    (folder / "efficiency.json").write_text(json.dumps(fitted, indent=1, sort_keys=True) + "\n")
    yield "efficiency.json: constants of the closed form"
    asked = Prepared(load(known_speculation=False), fitted)
    errors = heldout.read()
    heads = {head: _head(asked, head, errors) for head in HEADS}
    first = heads["ttft"].mean
    assert isinstance(first, Smoother)
    everything = np.ones(len(asked.data.rows), bool)
    heads["tpot"] = replace(heads["tpot"], smooth=beside(asked, everything, first))
    save(regressor(asked, heads), folder)
    yield "residual.npz: corrections and intervals"


def fitted_table(folder: Path = MODELS) -> dict[str, Any]:
    """The shipped constants of the closed form."""
    table: dict[str, Any] = json.loads((folder / "efficiency.json").read_text())
    return table


def _head(p: Prepared, head: str, errors: dict[str, heldout.Heldout]) -> Head:
    everything = np.ones(len(p.data.rows), bool)
    mean = smoother(p, everything) if head == "ttft" else mean_forest(p, head, everything)
    near = errors["curve"].corrected[head]
    seen = np.isfinite(near) & p.data.current
    scale = scale_forest(p.features[seen], near[seen], curve_weight(p.data, head)[seen])
    expected = np.exp(scale.predict(np.ascontiguousarray(p.features.T)))
    trust, far = _shrunk(p, head, errors)
    usual = _quantile(near, expected, p.data.current)
    novel = max(usual, *(_quantile(error, expected) for error in far))
    stretch = np.array([usual, novel, 1.3 * novel, 1.6 * novel])
    shape = tail(p, everything, mean) if isinstance(mean, Smoother) else None
    return Head(mean, scale, np.array([1.0, trust, trust, trust]), stretch, shape)


def _shrunk(p: Prepared, head: str, errors: dict[str, heldout.Heldout]) -> tuple[float, Array]:
    """How much of the correction to keep on unseen models and devices, and the errors that leaves (2, rows)."""
    recorded = p.data.current & np.array([fully_known(m) for m in p.data.rows])
    plain, full = (np.array([getattr(errors[s], k)[head] for s in _FAR]) for k in ("physics", "corrected"))
    mixed = {trust: np.where(recorded, plain + trust * (full - plain), np.nan) for trust in _TRUSTS}
    cost = {trust: np.nanmean(np.minimum(np.abs(error), 1.0)) for trust, error in mixed.items()}
    trust = min(_TRUSTS, key=lambda t: float(cost[t]))
    far = np.where(p.data.current, plain + trust * (full - plain), np.nan)
    return trust, far


def _quantile(error: Array, expected: Array, keep: NDArray[np.bool_] | None = None) -> float:
    ratio = np.abs(error) / expected
    usable = np.isfinite(ratio) if keep is None else np.isfinite(ratio) & keep
    return float(np.quantile(ratio[usable], _COVERAGE))
