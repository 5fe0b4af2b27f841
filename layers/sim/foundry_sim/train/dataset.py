"""The committed measurements as columns with targets, weights and the groups that validation keeps apart."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundry_sim.errors import ArchitectureError
from foundry_sim.facts.architecture import from_config, resolve
from foundry_sim.frame import Frame, frame
from foundry_sim.physics.steady import Steady
from foundry_sim.physics.terms import Array
from foundry_sim.requests import Case, Load, PredictionRequest, case
from foundry_sim.train.measurement import Measurement, read

DATA = Path(__file__).parent.parent / "data"
HEADS = ("tpot", "ttft", "rate")
# How much one row of a source counts: old engines and static batches inform the physics, not today's serving.
_SOURCE_WEIGHT = {"argonne": 0.1, "splitwise": 0.1, "llm-pilot": 0.03, "intel-gaudi": 0.3, "rocm-vllm": 0.2}
CURRENT = {"silicon-inferencex", "silicon-nvidia", "inferencex-amd", "bud-cpu", "trtllm-perf"}


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows of measurements. `targets[head]` is log seconds (or log requests/s for rate), NaN where not measured."""

    rows: tuple[Measurement, ...]
    frame: Frame
    targets: Mapping[str, Array]
    weight: Array
    current: NDArray[np.bool_]

    def take(self, index: NDArray[np.intp]) -> "Dataset":
        rows = tuple(self.rows[i] for i in index)
        targets = {head: values[index] for head, values in self.targets.items()}
        return Dataset(
            rows, frame([self.frame.cases[i] for i in index]), targets, self.weight[index], self.current[index]
        )


def load(known_speculation: bool) -> Dataset:
    """All measurements. `known_speculation` uses what was inferred about unmarked MTP runs (to fit the physics);
    without it, rows look as a request does that says nothing about speculation (to fit the correction)."""
    rows = read(DATA / "training" / "measurements.csv.gz")
    cases = [_case(m, known_speculation) for m in rows]
    targets = {head: np.array([_target(m, head) for m in rows]) for head in HEADS}
    weight = np.array([_SOURCE_WEIGHT.get(m.source, 1.0) * _doubt(m, known_speculation) for m in rows])
    current = np.array([m.source in CURRENT and m.kind != "static" for m in rows])
    return Dataset(tuple(rows), frame(cases), targets, weight, current)


def timed_whole(rows: Sequence[Measurement]) -> NDArray[np.bool_]:
    """Static batches of which only the time from start to end is known."""
    return np.array([m.kind == "static" and m.tpot_ms_mean is None for m in rows], np.bool_)


def model_value(head: str, state: Steady, whole: NDArray[np.bool_]) -> Array:
    """What the closed form says about the target of `head`, in the same unit; `whole` as `timed_whole` says."""
    if head == "ttft":
        return np.asarray(np.log(state.ttft_s))
    if head == "rate":
        return np.asarray(np.log(state.requests_per_s))
    return np.asarray(np.log(np.where(whole, state.e2e_s, state.tpot_s)))


def curve_weight(data: Dataset, head: str, power: float = 0.3) -> Array:
    """Rows of one concurrency curve are nearly the same measurement: long curves count less per row."""
    usable = np.isfinite(data.targets[head])
    size = Counter(m.curve for m, ok in zip(data.rows, usable, strict=True) if ok)
    return np.asarray(data.weight * [max(size[m.curve], 1) ** -power for m in data.rows])


def fully_known(m: Measurement) -> bool:
    """Whether the source says how many devices and replicas served, and whether they speculated."""
    return m.spec in ("", "mtp") and m.tp <= 8 and not _replicated(m)


def _replicated(m: Measurement) -> bool:
    """Deployments through Dynamo, whose number of replicas is not recorded: up to eight times too fast or too slow."""
    return m.source == "silicon-nvidia" and m.date >= "2026"


def _doubt(m: Measurement, known_speculation: bool) -> float:
    """Rows whose configuration is only half known count less."""
    unsure = m.spec == "unknown" and known_speculation
    return (0.6 if unsure else 1.0) * (0.15 if m.tp > 8 else 1.0) * (0.15 if _replicated(m) else 1.0)


def _case(m: Measurement, known_speculation: bool) -> Case:
    speculating = m.spec == "mtp" or (m.spec == "mtp?" and known_speculation)
    request = PredictionRequest(
        model=_config(m.model),
        device=m.device,
        isl=m.isl,
        osl=max(m.osl, 1.0),
        load=Load(m.kind, rate=m.load) if m.kind == "open" else Load(m.kind, concurrency=m.load),  # type: ignore[arg-type]
        engine=m.engine,
        engine_version=m.engine_version or None,
        date=m.date or None,
        precision={"weights": m.weights or None, "moe": m.moe or None, "kv": m.kv or None},
        tp=m.tp,
        pp=m.pp,
        ep=m.ep,
        dp=m.dp,
        spec_decode={"method": "mtp"} if speculating else None,
        max_num_seqs=m.max_num_seqs or None,
    )
    return _shared(case(request), m.model)


@cache
def _configs() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / "training" / "architectures.json").read_text())
    return found


@cache
def _config(model: str) -> str | Mapping[str, Any]:
    try:
        resolve(model)
    except ArchitectureError:
        return dict(_configs()[model])
    return model


@cache
def _architecture(model: str) -> Any:
    config = _config(model)
    return resolve(model) if isinstance(config, str) else from_config(config, model)


def _shared(c: Case, model: str) -> Case:
    """One architecture object per model, so that its terms are computed once."""
    return replace(c, architecture=_architecture(model))


def _target(m: Measurement, head: str) -> float:
    value: float | None = None
    if head == "tpot":
        value = _tpot_s(m)
    elif head == "ttft" and m.kind in ("closed", "open") and m.ttft_ms_mean:
        value = m.ttft_ms_mean / 1e3
    elif head == "rate" and m.kind == "offline" and m.output_tokens_per_s:
        value = m.output_tokens_per_s / m.osl
    return float(np.log(value)) if value else float("nan")


def _tpot_s(m: Measurement) -> float | None:
    """Seconds per token; of a static batch that is only timed as a whole, its seconds from start to end."""
    measured = m.tpot_ms_mean or m.tpot_ms_p50
    if m.kind in ("closed", "open", "static") and measured:
        return measured / 1e3
    if m.kind != "static":
        return None
    if m.e2e_ms_mean:
        return m.e2e_ms_mean / 1e3
    return m.osl * m.load / m.output_tokens_per_s if m.output_tokens_per_s and m.osl > 1 else None
