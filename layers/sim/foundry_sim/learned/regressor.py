"""The learned correction of the closed form, its 90 % interval, and how far either can be trusted.

Per head (tpot, ttft, offline rate) a smooth function or a forest predicts log(measured / closed form), and a second
forest the size of what is left, which grows with the distance to the nearest measurement: newer software, longer
prompts and other splits widen the interval by degrees, and the answer leans to the low side by as much. Outside the
measured domain (an architecture, device or engine that no measurement has) the correction is also shrunk towards the
physics and the interval widened, by amounts that validation on left-out models and devices gave.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundry_sim.learned.coordinates import coordinates
from foundry_sim.learned.features import Context, matrix
from foundry_sim.learned.smoother import Smoother
from foundry_sim.learned.trees import Forest, side_by_side
from foundry_sim.outcome import Correction
from foundry_sim.physics.steady import CLOSED, OFFLINE, Steady, Traffic
from foundry_sim.physics.step import Shape
from foundry_sim.physics.terms import Array, Terms

HEADS = ("tpot", "ttft", "rate")
MODELS = Path(__file__).parents[1] / "data" / "models"
# Half-widths (log) of the 90 % interval of the plain closed form, from validation on left-out models.
HEURISTIC_WIDTH = {"tpot": 0.55, "ttft": 1.2, "rate": 0.45}
_SEEN = ("architectures", "devices", "engines")
LIMIT = 1.5  # no correction passes a factor of e^1.5
_MOST_LEAN = 0.4


@dataclass(frozen=True, slots=True)
class Head:
    """`trust` and `stretch` are indexed by novelty: how many of architecture, device and engine are unmeasured."""

    mean: Forest | Smoother
    scale: Forest
    trust: NDArray[np.float64]
    stretch: NDArray[np.float64]
    tail: Smoother | None = None  # of TTFT: log corrections of median / mean and of p99 / mean


@dataclass(frozen=True, slots=True)
class Regressor:
    heads: dict[str, Head]
    architectures: frozenset[float]
    devices: frozenset[float]
    engines: frozenset[float]


def correction(t: Terms, shape: Shape, x: Traffic, s: Steady, known: Context, method: str) -> Correction:
    """Factors and widths for every row; the heuristic method corrects nothing. Both say alike what was measured."""
    one, learned = np.ones_like(s.tpot_s), load()
    if learned is None:
        return _uncorrected(one, in_domain=one < 0)
    novelty = np.broadcast_to(novelty_of(learned, t, known), one.shape)
    if method == "heuristic":
        return _uncorrected(one, in_domain=novelty == 0)
    places = coordinates(t, shape, x, s, known)
    smooth, distance = _smooth(learned, places)
    columns = with_distance(matrix(t, shape, x, s, known), distance)
    # Only where everything is queued at once has a throughput of its own.
    asked = HEADS if np.any(x.kind == OFFLINE) else ("tpot", "ttft")
    trees = _trees(learned, asked, columns)
    middle = {h: smooth[h] if h in smooth else trees[h, "mean"] for h in asked}
    sizes = {h: error_size(trees[h, "scale"]) for h in asked}
    found = {h: _apply(learned.heads[h], middle[h], sizes[h], novelty) for h in asked}
    found.setdefault("rate", (np.zeros_like(one), one * HEURISTIC_WIDTH["rate"]))
    factors = {head: np.exp(value) for head, (value, _) in found.items()}
    widths = {head: width for head, (_, width) in found.items()}
    return Correction(
        ttft=factors["ttft"],
        tpot=factors["tpot"],
        rate=factors["rate"],
        ttft_width=widths["ttft"],
        tpot_width=widths["tpot"],
        rate_width=widths["rate"],
        in_domain=novelty == 0,
        **_tail(learned.heads["ttft"], places, x, lean(sizes["ttft"])),
    )


def _uncorrected(one: Array, in_domain: NDArray[np.bool_]) -> Correction:
    first, token, rate = (one * HEURISTIC_WIDTH[head] for head in ("ttft", "tpot", "rate"))
    return Correction(one, one, one, first, token, rate, in_domain)


def _trees(learned: Regressor, heads: Sequence[str], columns: NDArray[np.float32]) -> dict[tuple[str, str], Array]:
    """What the forests say, by head and part of it."""
    parts = {(head, part): getattr(learned.heads[head], part) for head in heads for part in ("mean", "scale")}
    forests = {name: model for name, model in parts.items() if isinstance(model, Forest)}
    return dict(zip(forests, side_by_side(tuple(forests.values()), columns), strict=True))


def _apply(head: Head, value: Array, size: Array, novelty: NDArray[np.intp]) -> tuple[Array, Array]:
    """(log factor, half-width in log space); `size` is that of the error."""
    middle = np.clip(value, -LIMIT, LIMIT) * head.trust[novelty]
    return middle - lean(size), np.clip(size * head.stretch[novelty], 0.02, 2.5)


def with_distance(features: NDArray[np.float32], distance: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """What the forests look at: features (rows × n) as columns, and one more, how far the nearest measurement is."""
    return np.vstack([features.T, np.log(np.minimum(distance, 100.0) + 0.1)]).astype(np.float32, copy=False)


def error_size(scale: Array) -> Array:
    """The size of the log error that rows like these showed, from what a forest of `scale` says of them."""
    return np.asarray(np.exp(np.clip(scale, -4.0, 1.0)))


def lean(size: Array) -> Array:
    """How far (log) below the middle an answer lies: twice too high is 100 % wrong, twice too low only 50 %. The least
    mean percentage error is σ² below the median of normal log errors, whose σ² is 3.6 times the square of `size` (a
    geometric mean). It takes less here: errors have longer tails, and throughput leans the other way."""
    return np.asarray(np.minimum(size**2, _MOST_LEAN))


def _smooth(learned: Regressor, places: NDArray[np.float32]) -> tuple[dict[str, Array], NDArray[np.float32]]:
    """The smooth corrections of TTFT and TPOT, which share one kernel, and the distance to the nearest anchor."""
    first, token = learned.heads["ttft"].mean, learned.heads["tpot"].mean
    if not isinstance(first, Smoother) or not isinstance(token, Smoother):
        return {}, np.zeros(len(places), np.float32)
    both = replace(first, coefficients=np.stack([first.coefficients, token.coefficients], axis=1))
    found, distance = both.predict_near(places)
    return dict(zip(("ttft", "tpot"), found.T, strict=True)), distance


def _tail(head: Head, places: NDArray[np.float32], x: Traffic, leaning: Array) -> dict[str, Array]:
    """Percentiles of the first token were measured under closed loops only; they do not lean as the mean does."""
    if head.tail is None:
        return {}
    median, last = (head.tail.predict(places).T + leaning) * (x.kind == CLOSED)
    return {"ttft_median": median, "ttft_last": last}


def signature(t: Terms) -> Array:
    """A number that is the same for the same architecture and differs for others."""
    return np.asarray(t.layers * 1e9 + t.hidden * 1e4 + t.experts * 10.0 + t.experts_per_token)


def novelty_of(learned: Regressor, t: Terms, known: Context) -> NDArray[np.intp]:
    """How many of architecture, device and engine are unmeasured."""
    parts = (
        (signature(t), learned.architectures),
        (np.asarray(known.device), learned.devices),
        (np.asarray(known.engine), learned.engines),
    )
    unknown = [~np.isin(values, list(seen)) for values, seen in parts]
    return np.asarray(np.sum(np.broadcast_arrays(*unknown), axis=0), np.intp)


@cache
def load(folder: Path = MODELS) -> Regressor | None:
    """The shipped model, or None when the package holds none."""
    path = folder / "residual.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        heads = {head: _head(stored, head) for head in HEADS}
        architectures, devices, engines = (frozenset(stored[n].tolist()) for n in _SEEN)
        return Regressor(heads, architectures, devices, engines)


def _head(stored: Any, head: str) -> Head:
    def forest(part: str) -> Forest:
        feature, threshold, leaf = (stored[f"{head}_{part}_{a}"] for a in ("feature", "threshold", "leaf"))
        return Forest(feature, threshold, leaf, float(stored[f"{head}_{part}_base"]))

    def smoother(part: str) -> Smoother:
        anchors, coefficients, shape = (stored[f"{head}_{part}_{a}"] for a in ("anchors", "coefficients", "shape"))
        return Smoother(anchors, coefficients, *shape.tolist())

    mean = smoother("mean") if f"{head}_mean_anchors" in stored else forest("mean")
    tail = smoother("tail") if f"{head}_tail_anchors" in stored else None
    return Head(mean, forest("scale"), stored[f"{head}_trust"], stored[f"{head}_stretch"], tail)


def save(regressor: Regressor, folder: Path) -> None:
    arrays: dict[str, Any] = {}
    for name, head in regressor.heads.items():
        for part in ("mean", "scale", "tail"):
            model = getattr(head, part)
            if model is None:
                continue
            if isinstance(model, Smoother):
                arrays |= {f"{name}_{part}_{a}": getattr(model, a) for a in ("anchors", "coefficients")}
                arrays[f"{name}_{part}_shape"] = np.array([model.sharpness, model.offset])
                continue
            arrays |= {f"{name}_{part}_{a}": getattr(model, a) for a in ("feature", "threshold", "leaf")}
            arrays[f"{name}_{part}_base"] = np.float64(model.base)
        arrays |= {f"{name}_trust": head.trust, f"{name}_stretch": head.stretch}
    for group in _SEEN:
        arrays[group] = np.array(sorted(getattr(regressor, group)), dtype=np.float64)
    np.savez_compressed(folder / "residual.npz", **arrays)
