"""A user's own measurements tighten the predictions of that deployment and of its neighbours.

Each point says by which factor a prediction was off. A prediction nearby takes the weighted mean of those factors,
shrunk to no correction where points are few or far (a Gaussian-process posterior mean with a diagonal prior), and its
interval narrows by the same weight, down to the noise of repeated measurements or to the scatter of the points,
whichever is larger: points that contradict each other widen it. Points are data in numbered versions: adding makes a
new version, reverting goes back to an old one, and nothing is fitted into the shipped models.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import exp, inf, log, sqrt
from typing import Any

import numpy as np

from foundry_sim.errors import ConfigurationError, SimulatorError
from foundry_sim.facts.architecture import Architecture
from foundry_sim.physics.terms import Array
from foundry_sim.predict import Method, Prediction, PredictionRequest, Spread, predict
from foundry_sim.requests import Case, case, parse

SCHEMA_VERSION = 1
PRIOR_WEIGHT = 0.5  # a point as near as can be takes two thirds of the correction
NOISE = 0.05  # log spread of repeated measurements
_MAX_POINTS = 10_000
# Distances at which a point counts e^-1/2: factors of concurrency and of lengths; steps of TP; other software.
SCALES = {"load": log(4.0), "isl": log(4.0), "osl": log(4.0), "tp": 1.0}
_OTHER = {"engine_version": 0.5, "precision": 1.5, "engine": 2.5, "device": inf, "model": inf, "kind": inf}


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement beside what was predicted for it, both means in ms; None where not measured."""

    row: dict[str, Any]  # the request, as `foundry sim predict` takes it
    ttft_ms: float | None
    tpot_ms: float | None
    predicted_ttft_ms: float
    predicted_tpot_ms: float

    def error(self, head: str) -> float | None:
        """log(measured / predicted)."""
        measured = getattr(self, f"{head}_ms")
        return None if measured is None else log(measured / getattr(self, f"predicted_{head}_ms"))


# Log correction, the share of it that the points carry, log scatter of what is measured around it.
Near = tuple[Array, Array, Array]
Known = Sequence[tuple[Point, Case]]  # points with their requests, names resolved


@dataclass(frozen=True, slots=True)
class Calibration:
    """The points in force; `history[n]` holds the points of version n, so that any can be restored."""

    points: tuple[Point, ...] = ()
    version: int = 0
    history: tuple[tuple[Point, ...], ...] = ((),)

    def add(self, measured: Sequence[dict[str, Any]]) -> "Calibration":
        """A new version with more points. Each is a request plus `measured: {"ttft_ms", "tpot_ms"}` (means, ms).
        ConfigurationError when one cannot be read or predicted; then nothing changes."""
        added = self.points + tuple(_point(m) for m in measured)
        if len(added) > _MAX_POINTS:
            raise ConfigurationError(f"a calibration holds at most {_MAX_POINTS:,} points")
        return Calibration(added, len(self.history), (*self.history, added))

    def revert(self, version: int) -> "Calibration":
        """A new version that equals an old one."""
        if not 0 <= version < len(self.history):
            raise ConfigurationError(f"version {version} does not exist; the last is {len(self.history) - 1}")
        points = self.history[version]
        return Calibration(points, len(self.history), (*self.history, points))

    def apply(self, request: PredictionRequest, prediction: Prediction) -> Prediction:
        """The prediction, corrected and narrowed by the points near it."""
        return self.apply_all([request], [prediction])[0]

    def apply_all(self, requests: Sequence[PredictionRequest], predictions: Sequence[Prediction]) -> list[Prediction]:
        """Each prediction, corrected and narrowed by the points near its request."""
        known = [(point, case(parse(point.row))) for point in self.points]
        return [self._applied(known, r, p) for r, p in zip(requests, predictions, strict=True)]

    def _applied(self, known: Known, request: PredictionRequest, prediction: Prediction) -> Prediction:
        if prediction.error or prediction.ttft_ms is None or prediction.tpot_ms is None or not known:
            return prediction
        asked = case(request)
        away = [_distance(asked, measured) for _, measured in known]
        ttft = _corrected(prediction.ttft_ms, *_nearby(known, away, "ttft"))
        tpot = _corrected(prediction.tpot_ms, *_nearby(known, away, "tpot"))
        tail = max(request.osl - 1.0, 0.0)
        e2e = Spread(*(getattr(ttft, n) + tail * getattr(tpot, n) for n in ("mean", "p50", "p95", "p99", "lo", "hi")))
        before = prediction.ttft_ms.mean + tail * prediction.tpot_ms.mean
        gain = 1.0 if request.load.kind == "open" else before / e2e.mean
        rate, each = (None if v is None else v * gain for v in (prediction.output_tokens_per_s, prediction.per_gpu))
        return replace(prediction, ttft_ms=ttft, tpot_ms=tpot, e2e_ms=e2e, output_tokens_per_s=rate, per_gpu=each)

    def to_json(self) -> str:
        history = [[asdict(p) for p in points] for points in self.history]
        return json.dumps({"schema_version": SCHEMA_VERSION, "version": self.version, "history": history})

    @classmethod
    def from_json(cls, text: str) -> "Calibration":
        """ConfigurationError when the text is not a calibration."""
        try:
            value = json.loads(text)
            history = tuple(tuple(Point(**p) for p in points) for points in value["history"])
            points = history[value["version"]]
            for point in points:
                case(parse(point.row))
            return cls(points, value["version"], history)
        except (ValueError, TypeError, LookupError, RecursionError, SimulatorError):
            raise ConfigurationError("this is not a calibration; write it with Calibration.to_json") from None


def predict_calibrated(
    requests: Sequence[PredictionRequest], calibration: Calibration, method: Method = "regressor"
) -> list[Prediction]:
    """As `predict`, corrected by the calibration."""
    return calibration.apply_all(requests, predict(requests, method))


def _nearby(known: Known, away: Sequence[float], head: str) -> Near:
    errors = [(d, e) for (point, _), d in zip(known, away, strict=True) if (e := point.error(head)) is not None]
    weights = np.exp(-0.5 * np.array([distance for distance, _ in errors]) ** 2)
    return posterior(weights, np.array([error for _, error in errors]))


def posterior(weights: Array, errors: Array) -> Near:
    """What points say together. `errors` has shape (points,), `weights` (points, …); the answers have the rest."""
    total, weighted = weights.sum(axis=0), np.tensordot(errors, weights, 1)
    some = np.maximum(total, np.finfo(float).tiny)
    variance = np.tensordot(errors**2, weights, 1) / some - (weighted / some) ** 2
    scatter = np.maximum(NOISE, np.sqrt(np.maximum(variance, 0.0)))
    return weighted / (total + PRIOR_WEIGHT), total / (total + PRIOR_WEIGHT), scatter


def half_width(before: Array, share: Array, scatter: Array) -> Array:
    """Of the interval of what will be measured, in log space, given that of the prediction."""
    return np.asarray(np.sqrt((1.0 - share) * before**2 + share * (2.0 * scatter) ** 2))


def _point(measured: dict[str, Any]) -> Point:
    values = measured.get("measured")
    if not isinstance(values, dict):
        raise ConfigurationError('a point needs measured: {"ttft_ms": …, "tpot_ms": …}')
    row = {k: v for k, v in measured.items() if k != "measured"}
    ttft, tpot = (_positive(values.get(n), n) for n in ("ttft_ms", "tpot_ms"))
    if ttft is None and tpot is None:
        raise ConfigurationError("a point needs ttft_ms or tpot_ms")
    prediction = predict([parse(row)])[0]
    if prediction.error or prediction.ttft_ms is None or prediction.tpot_ms is None:
        raise ConfigurationError(f"a point cannot be predicted: {prediction.error}")
    return Point(row, ttft, tpot, prediction.ttft_ms.mean, prediction.tpot_ms.mean)


def _positive(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ConfigurationError(f"measured.{name} must be a positive number of milliseconds")
    return float(value)


def same_model(a: Architecture, b: Architecture) -> bool:
    """Whatever they are called: an alias, a path and a registered config may mean one model."""
    return a is b or replace(a, name="") == replace(b, name="")


def _distance(asked: Case, measured: Case) -> float:
    """Zero for the same configuration and load, infinite across models, devices and kinds of load."""
    a, b = asked.request, measured.request
    apart = sum((abs(log(x / y)) / SCALES[name]) ** 2 for name, x, y in _numbers(asked, measured))
    different = (
        ("model", not same_model(asked.architecture, measured.architecture)),
        ("device", asked.device.name != measured.device.name),
        ("kind", a.load.kind != b.load.kind),
        ("engine", asked.engine != measured.engine),
        ("engine_version", a.engine_version != b.engine_version),
        ("precision", asked.precision != measured.precision or bool(a.spec_decode) != bool(b.spec_decode)),
    )
    return sqrt(apart + difference([name for name, differs in different if differs]))


def difference(names: Sequence[str]) -> float:
    """Squared distance of two configurations that differ in these."""
    return sum(_OTHER[name] ** 2 for name in names)


def _numbers(asked: Case, measured: Case) -> tuple[tuple[str, float, float], ...]:
    a, b = asked.request, measured.request
    load = (max(a.load.amount, 1e-3), max(b.load.amount, 1e-3))
    devices = (float(asked.tp * asked.pp * asked.dp), float(measured.tp * measured.pp * measured.dp))
    return (("load", *load), ("isl", a.isl, b.isl), ("osl", a.osl, b.osl), ("tp", *devices))


def _corrected(spread: Spread, shift: Array, share: Array, scatter: Array) -> Spread:
    """Every statistic moves by the factor; the interval shrinks or grows towards the scatter of measurements."""
    factor = exp(shift)
    before = np.abs(np.log(np.array([spread.lo, spread.hi]) / spread.mean))
    low, high = half_width(before, share, scatter).tolist()
    mean = spread.mean * factor
    p50, p95, p99 = (value * factor for value in (spread.p50, spread.p95, spread.p99))
    return Spread(mean, p50, p95, p99, mean * exp(-low), mean * exp(high))
