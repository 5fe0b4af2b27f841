"""`foundry sim train`: the shipped model files from the committed measurements, bit for bit.

Order: the efficiency constants (least squares), the forests on what they leave, then interval scales and trust from the
committed held-out errors (`foundry sim validate --refit` writes those).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from foundry_sim.learned.regressor import MODELS, Head, save
from foundry_sim.learned.smoother import Smoother
from foundry_sim.learned.trees import Forest
from foundry_sim.train import heldout, intervals
from foundry_sim.train.dataset import load
from foundry_sim.train.fit_physics import PhysicsFit
from foundry_sim.train.fit_residual import Prepared, mean_forest, regressor
from foundry_sim.train.fit_tpot import beside
from foundry_sim.train.fit_ttft import smoother, tail


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
    save(regressor(asked, dict(_heads(asked, heldout.read()))), folder)
    yield "residual.npz: corrections and intervals"


def fitted_table(folder: Path = MODELS) -> dict[str, Any]:
    """The shipped constants of the closed form."""
    table: dict[str, Any] = json.loads((folder / "efficiency.json").read_text())
    return table


def _heads(p: Prepared, found: dict[str, heldout.Heldout]) -> Iterator[tuple[str, Head]]:
    everything = np.ones(len(p.data.rows), bool)
    first = smoother(p, everything)
    means: dict[str, Forest | Smoother] = {
        "tpot": beside(p, everything, first),
        "ttft": first,
        "rate": mean_forest(p, "rate", everything),
    }
    for head, mean in means.items():
        trust = intervals.trust(p.data, head, found)
        scale, stretch = intervals.fit(intervals.sample(p, head, found, trust))
        shape = tail(p, everything, first) if head == "ttft" else None
        yield head, Head(mean, scale, np.array([1.0, trust, trust, trust]), stretch, shape)
