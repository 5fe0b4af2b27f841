"""Own measurements in a search: the calibration of `foundry_sim.calibration`, in columns."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np

from foundry_sim.calibration import Near, half_width, nearby
from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.devices import device
from foundry_sim.facts.precision import Precision
from foundry_sim.likeness import ANY_VERSION, Places, Traits, apart, nameless, numbers, places
from foundry_sim.outcome import Spreads, whole_request
from foundry_sim.physics.terms import Array
from foundry_sim.predict import ArrayPrediction
from foundry_sim.requests import Case, case, parse
from foundry_sim.search.plans import SimulationRequest


def calibrated(
    request: SimulationRequest,
    architecture: Architecture,
    place: tuple[str, str, Precision],
    predicted: ArrayPrediction,
    load: Array,
    split: Mapping[str, Array],
) -> ArrayPrediction:
    """The predictions of a block, corrected and narrowed by the request's points near each row; `place` is its device,
    engine and precision, `split` the rows' tp, pp, ep and dp."""
    if not request.calibration:
        return predicted
    measured = places([_measured(json.dumps(point.row, sort_keys=True)) for point in request.calibration])
    weights = np.exp(-0.5 * apart(_asked(request, architecture, place, load, split), measured))
    if not weights.any():
        return predicted
    answer = predicted.outcome
    tail = np.asarray(max(request.workload.output_tokens - 1.0, 0.0))
    first, token = (nearby(request.calibration, weights, head) for head in ("ttft", "tpot"))
    ttft, tpot = _moved(answer.ttft_ms, first), _moved(answer.tpot_ms, token)
    whole = whole_request(ttft, tpot, tail)
    gain = answer.e2e_ms.mean / whole.mean if request.workload.concurrency else np.ones_like(load)
    rates = {
        name: getattr(answer, name) * gain
        for name in ("output_tokens_per_s", "output_tokens_per_s_lo", "output_tokens_per_s_hi")
    }
    return replace(predicted, outcome=replace(answer, ttft_ms=ttft, tpot_ms=tpot, e2e_ms=whole, **rates))


def _asked(
    request: SimulationRequest,
    architecture: Architecture,
    place: tuple[str, str, Precision],
    load: Array,
    split: Mapping[str, Array],
) -> Places:
    """The rows of a block; a search asks of no version."""
    (name, engine, precision), work = place, request.workload
    kind = "closed" if work.concurrency else "open"
    traits = Traits(nameless(architecture), device(name).name, kind, engine, ANY_VERSION, precision, drafts=False)
    rows = numbers(load=load, isl=float(work.input_tokens), osl=float(max(1, work.output_tokens)), **split)
    return Places((traits,), np.zeros(len(load), np.intp), rows)


@lru_cache(maxsize=4096)
def _measured(row: str) -> Case:
    return case(parse(json.loads(row)))


def _moved(spread: Spreads, near: Near) -> Spreads:
    shift, share, scatter = near
    factor = np.exp(shift)

    def moved(bound: Array) -> Array:
        width = np.log(bound / spread.mean)
        return np.asarray(np.sign(width) * half_width(width, share, scatter))

    mean, p50, p95, p99 = (value * factor for value in (spread.mean, spread.p50, spread.p95, spread.p99))
    low, high = (mean * np.exp(moved(bound)) for bound in (spread.lo, spread.hi))
    return Spreads(mean, p50, p95, p99, low, high)
