"""Predictions of every measurement by models that never saw its group.

Four ways to leave groups out: `curve` (model, device, engine, devices: an unseen configuration), `model`, `device`, and
`time` (everything measured after a date). Physics and forests are both refitted without the group.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundry_sim.regressor import HEADS
from foundry_sim.terms import Array
from foundry_sim.train.dataset import DATA, Dataset
from foundry_sim.train.fit_physics import PhysicsFit
from foundry_sim.train.fit_residual import Prepared, mean_forest
from foundry_sim.train.measurement import Measurement

SPLITS = ("curve", "model", "device", "time")
FILE = DATA / "training" / "heldout.npz"
_CURVE_FOLDS = 5
_TIME = "2026-03-01"
_SERVING = ("silicon-inferencex", "silicon-nvidia", "inferencex-amd")
_MODELS = (
    "MiniMaxAI/MiniMax-M2.5",
    "Qwen/Qwen3-235B-A22B-FP8",
    "Qwen/Qwen3-32B",
    "Qwen/Qwen3.5-397B-A17B",
    "deepseek-ai/DeepSeek-R1",
    "meta-llama/Llama-3.1-70B",
    "moonshotai/Kimi-K2.5",
)
# MI300X and MI325X are one chip with different memory: they leave together.
_DEVICES = {"b200_sxm": 0, "h100_sxm": 1, "h200_sxm": 2, "mi355x": 3, "mi300x": 4, "mi325x": 4, "l40s": 5}


@dataclass(frozen=True, slots=True)
class Heldout:
    """Log errors (predicted / measured) by head, NaN where a row was never left out; shape: rows."""

    physics: dict[str, Array]
    corrected: dict[str, Array]


def folds(rows: Sequence[Measurement], split: str) -> NDArray[np.intp]:
    """The fold of each row, -1 for rows that always train."""
    return np.array([_FOLD[split](rows)(m) for m in rows], np.intp) if split != "curve" else _curves(rows)


def _curves(rows: Sequence[Measurement]) -> NDArray[np.intp]:
    names = sorted({str(m.curve) for m in rows})
    order = np.random.default_rng(0).permutation(len(names))
    fold = {name: int(place % _CURVE_FOLDS) for name, place in zip(names, order, strict=True)}
    return np.array([fold[str(m.curve)] for m in rows], np.intp)


def _late(m: Measurement) -> bool:
    return m.source in _SERVING and m.date >= _TIME


_FOLD: dict[str, Callable[[Sequence[Measurement]], Callable[[Measurement], int]]] = {
    "model": lambda _: lambda m: _MODELS.index(m.model) if m.model in _MODELS else -1,
    "device": lambda _: lambda m: _DEVICES.get(m.device, -1),
    "time": lambda _: lambda m: 0 if _late(m) else -1,
}


def leave_out(clean: Dataset, asked: Dataset, split: str) -> Iterator[tuple[int, Heldout]]:
    """Fit without each fold in turn; yields the fold and its errors as soon as they are known."""
    fold = folds(clean.rows, split)
    for number in sorted(set(fold.tolist()) - {-1}):
        fitted = PhysicsFit(clean, fold != number).run()
        yield number, _errors(Prepared(asked, fitted), fold == number)


def _errors(p: Prepared, out: NDArray[np.bool_]) -> Heldout:
    physics = {h: np.where(out & p.usable(h), -p.residual[h], np.nan) for h in HEADS}
    columns = np.ascontiguousarray(p.features.T)
    corrected = {}
    for h in HEADS:
        known = out & p.usable(h)
        value = mean_forest(p, h, ~out).predict(columns) if known.any() else np.zeros(len(out))
        corrected[h] = np.where(known, value - p.residual[h], np.nan)
    return Heldout(physics, corrected)


def merge(parts: Sequence[Heldout]) -> Heldout:
    def joined(name: str) -> dict[str, Array]:
        return {h: np.nanmax([getattr(p, name)[h] for p in parts], axis=0) for h in HEADS}

    with np.errstate(all="ignore"):
        return Heldout(joined("physics"), joined("corrected"))


def save(found: dict[str, Heldout], path: Path = FILE) -> None:
    arrays: dict[str, Any] = {}
    for split, held in found.items():
        for head in HEADS:
            arrays[f"{split}_{head}_physics"] = held.physics[head].astype(np.float32)
            arrays[f"{split}_{head}_corrected"] = held.corrected[head].astype(np.float32)
    np.savez_compressed(path, **arrays)


def read(path: Path = FILE) -> dict[str, Heldout]:
    with np.load(path, allow_pickle=False) as stored:
        return {
            split: Heldout(*({h: stored[f"{split}_{h}_{kind}"].astype(float) for h in HEADS} for kind in _KINDS))
            for split in SPLITS
        }


_KINDS = ("physics", "corrected")
