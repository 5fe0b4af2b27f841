"""A user's own measurements tighten the predictions of that deployment and of its neighbours.

Each point says by which factor a prediction was off. A prediction nearby takes the weighted mean of those factors,
shrunk to no correction where points are few or far (a Gaussian-process posterior mean with a diagonal prior), and its
interval narrows by the same weight, down to the noise of repeated measurements or to the scatter of the points,
whichever is larger: points that contradict each other widen it. Percentiles tell how requests differ, not how sure we
are, so they move with the mean and do not widen. Points are data in numbered versions: adding makes a
new version, reverting goes back to an old one, and nothing is fitted into the shipped models.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import exp, inf, log
from typing import Any, Protocol

import numpy as np

from foundry_sim.errors import ConfigurationError, SimulatorError
from foundry_sim.likeness import apart, places
from foundry_sim.physics.terms import Array
from foundry_sim.predict import Method, Prediction, PredictionRequest, Spread, predict
from foundry_sim.requests import case, parse

SCHEMA_VERSION = 1
PRIOR_WEIGHT = 0.5  # a point as near as can be takes two thirds of the correction
NOISE = 0.05  # log spread of repeated measurements
_MAX_POINTS = 10_000
_SHORTEST_MS = 1e-9  # of what can be measured; beyond it ratios overflow
_ROWS = 256  # at once, beside all points


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement beside what was predicted for it, both means in ms; None where not measured."""

    row: dict[str, Any]  # the request, as `foundry sim predict` takes it
    ttft_ms: float | None
    tpot_ms: float | None
    predicted_ttft_ms: float
    predicted_tpot_ms: float


class Measured(Protocol):
    """What a point holds wherever it is kept; means in ms."""

    @property
    def ttft_ms(self) -> float | None: ...
    @property
    def tpot_ms(self) -> float | None: ...
    @property
    def predicted_ttft_ms(self) -> float: ...
    @property
    def predicted_tpot_ms(self) -> float: ...


# Log correction, the share of it that the points carry, log scatter of what is measured around it.
Near = tuple[Array, Array, Array]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The points in force; `history[n]` holds the points of version n, so that any can be restored."""

    points: tuple[Point, ...] = ()
    version: int = 0
    history: tuple[tuple[Point, ...], ...] = ((),)

    def add(self, measured: Sequence[dict[str, Any]]) -> "Calibration":
        """A new version with more points. Each is a request plus `measured: {"ttft_ms", "tpot_ms"}` (means, ms).
        ConfigurationError when one cannot be read or predicted; then nothing changes."""
        if len(self.points) + len(measured) > _MAX_POINTS:
            raise ConfigurationError(f"a calibration holds at most {_MAX_POINTS:,} points")
        taken = [_taken(m) for m in measured]
        answers = predict([parse(row) for row, _, _ in taken])
        added = self.points + tuple(_point(*one, answer) for one, answer in zip(taken, answers, strict=True))
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
        found = list(predictions)
        if not self.points:
            return found
        rows = [i for i, prediction in enumerate(predictions) if prediction.error is None]
        measured = places([case(parse(point.row)) for point in self.points])
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            weights = np.exp(-0.5 * apart(places([case(requests[i]) for i in some]), measured))
            first, token = (zip(*nearby(self.points, weights, head), strict=True) for head in ("ttft", "tpot"))
            for i, ttft, tpot in zip(some, first, token, strict=True):
                found[i] = _moved(requests[i], predictions[i], ttft, tpot)
        return found

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
                _check(point)
            return cls(points, value["version"], history)
        except (ValueError, TypeError, LookupError, RecursionError, SimulatorError):
            raise ConfigurationError("this is not a calibration; write it with Calibration.to_json") from None


def predict_calibrated(
    requests: Sequence[PredictionRequest], calibration: Calibration, method: Method = "regressor"
) -> list[Prediction]:
    """As `predict`, corrected by the calibration."""
    return calibration.apply_all(requests, predict(requests, method))


def nearby(points: Sequence[Measured], weights: Array, head: str) -> Near:
    """What the points that measured this head say together; `weights` has shape (points, …)."""
    pairs = [(getattr(point, f"{head}_ms"), getattr(point, f"predicted_{head}_ms")) for point in points]
    known = [place for place, (measured, _) in enumerate(pairs) if measured is not None]
    return posterior(weights[known], np.array([log(pairs[place][0] / pairs[place][1]) for place in known]))


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


def _taken(measured: dict[str, Any]) -> tuple[dict[str, Any], float | None, float | None]:
    """The request, and what it took: means of TTFT and TPOT in ms."""
    values = measured.get("measured")
    if not isinstance(values, dict):
        raise ConfigurationError('a point needs measured: {"ttft_ms": …, "tpot_ms": …}')
    row = {k: v for k, v in measured.items() if k != "measured"}
    ttft, tpot = (_positive(values.get(n), n) for n in ("ttft_ms", "tpot_ms"))
    if ttft is None and tpot is None:
        raise ConfigurationError("a point needs ttft_ms or tpot_ms")
    return row, ttft, tpot


def _point(row: dict[str, Any], ttft: float | None, tpot: float | None, prediction: Prediction) -> Point:
    if prediction.error or prediction.ttft_ms is None or prediction.tpot_ms is None:
        raise ConfigurationError(f"a point cannot be predicted: {prediction.error}")
    if tpot and not prediction.tpot_ms.mean:
        raise ConfigurationError("measured.tpot_ms cannot be: this model writes no tokens")
    return Point(row, ttft, tpot, prediction.ttft_ms.mean, prediction.tpot_ms.mean)


def _check(stored: Point) -> None:
    """ConfigurationError when a point that was kept cannot be compared with its prediction."""
    case(parse(stored.row))
    pairs = (stored.ttft_ms, stored.predicted_ttft_ms), (stored.tpot_ms, stored.predicted_tpot_ms)
    for measured, predicted in pairs:
        least = 0.0 if _positive(measured, "mean") is None else _SHORTEST_MS
        if not least <= predicted < inf:
            raise ConfigurationError("a point needs what was predicted for it")


def _positive(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not _SHORTEST_MS <= value < 1e9:
        raise ConfigurationError(f"measured.{name} must be a positive number of milliseconds")
    return float(value)


def _moved(request: PredictionRequest, prediction: Prediction, first: Near, token: Near) -> Prediction:
    if prediction.ttft_ms is None or prediction.tpot_ms is None:
        return prediction
    ttft, tpot = _corrected(prediction.ttft_ms, *first), _corrected(prediction.tpot_ms, *token)
    tail = max(request.osl - 1.0, 0.0)
    e2e = Spread(*(getattr(ttft, n) + tail * getattr(tpot, n) for n in ("mean", "p50", "p95", "p99", "lo", "hi")))
    before = prediction.ttft_ms.mean + tail * prediction.tpot_ms.mean
    gain = 1.0 if request.load.kind == "open" else before / e2e.mean
    rates = (prediction.output_tokens_per_s, prediction.requests_per_s, prediction.per_gpu)
    tokens, requests, each = (None if rate is None else rate * gain for rate in rates)
    return replace(
        prediction, ttft_ms=ttft, tpot_ms=tpot, e2e_ms=e2e, output_tokens_per_s=tokens, requests_per_s=requests,
        per_gpu=each,
    )  # fmt: skip


def _corrected(spread: Spread, shift: Array, share: Array, scatter: Array) -> Spread:
    """Every statistic moves by the factor; the interval shrinks or grows towards the scatter of measurements."""
    if not spread.mean:  # of a model that writes no tokens
        return spread
    factor = exp(shift)
    before = np.abs(np.log(np.array([spread.lo, spread.hi]) / spread.mean))
    low, high = half_width(before, share, scatter).tolist()
    mean = spread.mean * factor
    p50, p95, p99 = (value * factor for value in (spread.p50, spread.p95, spread.p99))
    return Spread(mean, p50, p95, p99, mean * exp(-low), mean * exp(high))
