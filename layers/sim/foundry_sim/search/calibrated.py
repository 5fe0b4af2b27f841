"""Own measurements in a search: the calibration of `foundry_sim.calibration`, in columns."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from foundry_sim.calibration import SCALES, Near, difference, half_width, posterior, same_model
from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.devices import device
from foundry_sim.facts.precision import Precision
from foundry_sim.outcome import Spreads, whole_request
from foundry_sim.physics.terms import Array
from foundry_sim.predict import ArrayPrediction
from foundry_sim.requests import Case, case, parse
from foundry_sim.search.plans import CalibrationPoint, SimulationRequest


def calibrated(
    request: SimulationRequest,
    architecture: Architecture,
    place: tuple[str, str, Precision],
    predicted: ArrayPrediction,
    load: Array,
    devices: Array,
) -> ArrayPrediction:
    """The predictions of a block, corrected and narrowed by the request's points near each row; `place` is its device,
    engine and precision, `devices` those of one replica."""
    found = [
        (point, np.exp(-0.5 * apart))
        for point in request.calibration
        if (apart := _apart(request, architecture, place, point, load, devices)) is not None
    ]
    if not found:
        return predicted
    answer = predicted.outcome
    tail = np.asarray(max(request.workload.output_tokens - 1.0, 0.0))
    first, token = _moved(answer.ttft_ms, _near(found, "ttft")), _moved(answer.tpot_ms, _near(found, "tpot"))
    whole = whole_request(first, token, tail)
    gain = answer.e2e_ms.mean / whole.mean if request.workload.concurrency else np.ones_like(load)
    rates = {
        name: getattr(answer, name) * gain
        for name in ("output_tokens_per_s", "output_tokens_per_s_lo", "output_tokens_per_s_hi")
    }
    return replace(predicted, outcome=replace(answer, ttft_ms=first, tpot_ms=token, e2e_ms=whole, **rates))


def _apart(
    request: SimulationRequest,
    architecture: Architecture,
    place: tuple[str, str, Precision],
    point: CalibrationPoint,
    load: Array,
    devices: Array,
) -> Array | None:
    """Squared distance of each row from the point; None where it says nothing about this block."""
    measured = _measured(json.dumps(point.row, sort_keys=True))
    name, engine, precision = place
    kind = "closed" if request.workload.concurrency else "open"
    differs = {
        "model": not same_model(measured.architecture, architecture),
        "device": measured.device.name != device(name).name,
        "kind": measured.request.load.kind != kind,
        "engine": measured.engine != engine,
        "engine_version": False,
        "precision": measured.precision != precision or bool(measured.request.spec_decode),
    }
    fixed = difference([what for what, differ in differs.items() if differ])
    if not np.isfinite(fixed):
        return None
    own = measured.request
    pairs: dict[str, tuple[Array | float, float]] = {
        "load": (np.maximum(load, 1e-3), max(own.load.amount, 1e-3)),
        "isl": (float(request.workload.input_tokens), own.isl),
        "osl": (float(max(1, request.workload.output_tokens)), own.osl),
        "tp": (devices, float(measured.tp * measured.pp * measured.dp)),
    }
    return np.asarray(fixed + sum((np.log(a / b) / SCALES[what]) ** 2 for what, (a, b) in pairs.items()))


@lru_cache(maxsize=4096)
def _measured(row: str) -> Case:
    return case(parse(json.loads(row)))


def _near(found: Sequence[tuple[CalibrationPoint, Array]], head: str) -> Near:
    known = [(point, weight) for point, weight in found if getattr(point, f"{head}_ms") is not None]
    weights = np.array([weight for _, weight in known]).reshape(len(known), len(found[0][1]))
    ratios = [getattr(point, f"{head}_ms") / getattr(point, f"predicted_{head}_ms") for point, _ in known]
    return posterior(weights, np.log(np.array(ratios)))


def _moved(spread: Spreads, near: Near) -> Spreads:
    shift, share, scatter = near
    factor = np.exp(shift)

    def moved(bound: Array) -> Array:
        width = np.log(bound / spread.mean)
        return np.asarray(np.sign(width) * half_width(width, share, scatter))

    mean, p50, p95, p99 = (value * factor for value in (spread.mean, spread.p50, spread.p95, spread.p99))
    low, high = (mean * np.exp(moved(bound)) for bound in (spread.lo, spread.hi))
    return Spreads(mean, p50, p95, p99, low, high)
