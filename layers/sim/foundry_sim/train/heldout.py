"""Predictions of every measurement by models that never saw its group.

Five ways to leave groups out: `curve` (model, device, engine, devices: an unseen configuration), `model`, `device`,
`time` (everything measured after a date), and `source` (all that one benchmark measured, as other people's benchmarks
are). Physics and forests are both refitted without the group.
"""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundry_sim.learned.regressor import HEADS, LIMIT
from foundry_sim.learned.smoother import Smoother
from foundry_sim.physics.terms import Array
from foundry_sim.train.dataset import CURRENT, DATA, Dataset
from foundry_sim.train.fit_physics import PhysicsFit
from foundry_sim.train.fit_residual import Prepared, mean_forest
from foundry_sim.train.fit_tpot import beside
from foundry_sim.train.fit_ttft import places, smoother
from foundry_sim.train.measurement import Measurement

SPLITS = ("curve", "model", "device", "time", "source")
FILE = DATA / "training" / "heldout.npz"
FOLDS = DATA / "training" / "folds.json.gz"
ROUNDS = 16
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
# MI300X and MI325X are one chip with different memory, B200 and GB200 one on different boards: they leave together.
_DEVICES = {"b200_sxm": 0, "gb200": 0, "h100_sxm": 1, "h200_sxm": 2, "mi355x": 3, "mi300x": 4, "mi325x": 4, "l40s": 5}


@dataclass(frozen=True, slots=True)
class Heldout:
    """Log errors (predicted / measured) by head, and how far the nearest measurement was that trained; NaN where a row
    was never left out, `corrected` also where nothing else taught. Shape: rows."""

    physics: dict[str, Array]
    corrected: dict[str, Array]
    distance: Array


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
    "source": lambda _: lambda m: sorted(CURRENT).index(m.source) if m.source in CURRENT else -1,
}


def fit_folds(clean: Dataset, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Constants of the closed form fitted without each fold in turn, as soon as they are known."""
    fold = folds(clean.rows, split)
    for number in sorted(set(fold.tolist()) - {-1}):
        yield f"{split}/{number}", rounded(PhysicsFit(clean, fold != number).run(ROUNDS))


def leave_out(asked: Dataset, tables: dict[str, dict[str, Any]], split: str) -> Heldout:
    """Errors of every row under the constants and forests that never saw its fold."""
    fold = folds(asked.rows, split)
    numbers = sorted(set(fold.tolist()) - {-1})
    return merge([errors_without(Prepared(asked, tables[f"{split}/{n}"]), fold == n) for n in numbers])


def read_folds() -> dict[str, dict[str, Any]]:
    if not FOLDS.is_file():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(gzip.decompress(FOLDS.read_bytes()))
    return found


def save_folds(tables: dict[str, dict[str, Any]]) -> None:
    text = json.dumps(tables, sort_keys=True, separators=(",", ":"))
    FOLDS.write_bytes(gzip.compress(text.encode(), mtime=0))


def rounded(table: dict[str, Any]) -> dict[str, Any]:
    """Five digits: what ships is what trained, and the file stays readable."""
    return {k: rounded(v) if isinstance(v, dict) else float(f"{v:.5g}") for k, v in table.items()}


def errors_without(p: Prepared, out: NDArray[np.bool_]) -> Heldout:
    """Errors on the rows `out` of corrections that never saw them, under the physics of `p`."""
    physics = {h: np.where(out & p.usable(h), -p.residual[h], np.nan) for h in HEADS}
    columns = np.ascontiguousarray(p.features.T)
    first, corrected = smoother(p, ~out), {}
    for h in HEADS:
        known = out & p.usable(h)
        taught = known.any() and np.any(p.usable(h) & ~out)  # one source alone measured the offline rate
        value = _correction(p, h, ~out, columns, first) if taught else np.nan
        corrected[h] = np.where(known, value - p.residual[h], np.nan)
    return Heldout(physics, corrected, np.where(out, first.predict_near(places(p))[1], np.nan))


def _correction(
    p: Prepared, head: str, keep: NDArray[np.bool_], columns: NDArray[np.float32], first: Smoother
) -> Array:
    """What the models trained on `keep` add to the closed form, for all rows."""
    if head == "rate":
        return mean_forest(p, head, keep).predict(columns)
    smooth = first if head == "ttft" else beside(p, keep, first)
    return np.clip(smooth.predict(places(p)), -LIMIT, LIMIT)


def merge(parts: Sequence[Heldout]) -> Heldout:
    """Each row was left out at most once."""

    def joined(found: Sequence[Array]) -> Array:
        values = np.array(found)
        return np.where(np.isfinite(values).any(axis=0), np.nansum(values, axis=0), np.nan)

    physics, corrected = ({h: joined([getattr(p, name)[h] for p in parts]) for h in HEADS} for name in _KINDS)
    return Heldout(physics, corrected, joined([p.distance for p in parts]))


def save(found: dict[str, Heldout], path: Path = FILE) -> None:
    arrays: dict[str, Any] = {}
    for split, held in found.items():
        arrays[f"{split}_distance"] = held.distance.astype(np.float32)
        for head in HEADS:
            arrays[f"{split}_{head}_physics"] = held.physics[head].astype(np.float32)
            arrays[f"{split}_{head}_corrected"] = held.corrected[head].astype(np.float32)
    np.savez_compressed(path, **arrays)


def read(path: Path = FILE) -> dict[str, Heldout]:
    with np.load(path, allow_pickle=False) as stored:

        def heads(split: str, kind: str) -> dict[str, Array]:
            return {h: stored[f"{split}_{h}_{kind}"].astype(float) for h in HEADS}

        return {
            split: Heldout(
                heads(split, "physics"), heads(split, "corrected"), stored[f"{split}_distance"].astype(float)
            )
            for split in SPLITS
        }


_KINDS = ("physics", "corrected")
