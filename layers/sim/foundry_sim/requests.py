"""What is asked: one engine instance under one load; parsed from untrusted JSON, resolved against the catalogues."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import isfinite
from sys import float_info
from typing import Any, Literal, NoReturn

from foundry_sim.errors import ConfigurationError
from foundry_sim.facts.architecture import Architecture, resolve
from foundry_sim.facts.devices import Device, device
from foundry_sim.facts.engines import ENCODERS, engine_name
from foundry_sim.facts.parallel import refuse_split
from foundry_sim.facts.precision import Precision
from foundry_sim.facts.served_precision import resolve_precision
from foundry_sim.facts.weights import Layout

Kind = Literal["closed", "open", "offline", "static"]
Id = str | int | float | None  # any JSON scalar
_ID_LENGTH_MAX = 1000
_NO_SPECULATION = ("none", "off", "no_", "disabled", "false", "unknown")
_LARGEST = {"tp": 512, "pp": 64, "ep": 512, "dp": 512}


@dataclass(frozen=True, slots=True)
class Load:
    """`closed`: `concurrency` clients that each wait for their answer; `open`: `rate` requests/s arrive whatever
    happens; `offline`: everything is queued at once; `static`: one batch of `concurrency`, no others admitted."""

    kind: Kind = "closed"
    concurrency: float | None = None
    rate: float | None = None

    @property
    def amount(self) -> float:
        return float((self.rate if self.kind == "open" else self.concurrency) or 0.0)


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """One row to predict. Lengths are mean tokens; empty precisions mean: as the checkpoint ships."""

    model: str | Mapping[str, Any]
    device: str
    isl: float
    osl: float
    load: Load
    id: Id = ""
    engine: str = "vllm"
    engine_version: str | None = None
    date: str | None = None
    precision: Mapping[str, str | None] = field(default_factory=dict)
    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1
    spec_decode: Mapping[str, Any] | None = None
    max_num_seqs: int | None = None
    chunk_tokens: int | None = None
    memory_utilization: float | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A request with its names resolved."""

    request: PredictionRequest
    architecture: Architecture
    device: Device
    precision: Precision
    engine: str
    tp: int
    pp: int
    ep: int
    dp: int

    @property
    def layout(self) -> Layout:
        return Layout(self.tp, self.pp, self.ep, self.dp)


def identifier(row: Mapping[str, Any]) -> Id:
    """As it came, so that answers can be joined with questions; "" when there is none. ConfigurationError when it is
    no JSON scalar or longer than 1,000 characters."""
    found = row.get("id", "")
    if found is not None and not isinstance(found, str | int | float):
        raise ConfigurationError("id must be text, a number, true, false or null")
    if isinstance(found, float) and not isfinite(found):
        raise ConfigurationError("id must be a finite number")
    if len(str(found)) > _ID_LENGTH_MAX:
        raise ConfigurationError(f"id must have at most {_ID_LENGTH_MAX:,} characters")
    return found


def parse(row: Any) -> PredictionRequest:
    """A decoded JSON value → request. ConfigurationError names the field that is wrong."""
    if not isinstance(row, Mapping):
        raise ConfigurationError("a row must be a JSON object")
    precision = _mapping(row, "precision")
    unknown = set(precision) - {"weights", "activations", "kv", "moe"}
    if unknown:
        raise ConfigurationError(f"precision.{str(min(unknown, key=str))[:40]} is not a known field")
    return PredictionRequest(
        id=identifier(row),
        model=_model(row.get("model")),
        device=_text(row, "device") or _missing("device"),
        engine=engine_name(_text(row, "engine") or "vllm"),
        engine_version=_text(row, "engine_version"),
        date=_text(row, "date"),
        precision={k: None if v is None else str(v)[:20] for k, v in precision.items()},
        **{name: _count(row, name, 1, largest) for name, largest in _LARGEST.items()},
        isl=_positive(row, "isl", 10_000_000),
        osl=0.0 if row.get("osl") in (None, 0) else _positive(row, "osl", 10_000_000),
        load=_load(row.get("load")),
        spec_decode=_speculation(row),
        max_num_seqs=_optional_count(row, "max_num_seqs"),
        chunk_tokens=_optional_count(row, "chunk_tokens"),
    )


def case(request: PredictionRequest) -> Case:
    """Resolve the names of a request; SimulatorError says which one is unknown."""
    architecture = _architecture(request.model)
    target = device(request.device)
    engine = engine_name(request.engine)
    if engine == "trtllm" and target.vendor != "nvidia":
        raise ConfigurationError(f"trtllm runs on NVIDIA devices only, not on {target.name}; use vllm or sglang")
    tp, dp, ep = _parallel(request, architecture, target)
    refuse_split(architecture, engine, Layout(tp, request.pp, ep, dp))
    request = _with_output(request, architecture, engine)
    precision = resolve_precision(architecture, target, engine, request.precision)
    return Case(request, architecture, target, precision, engine, tp, request.pp, ep, dp)


def _with_output(request: PredictionRequest, a: Architecture, engine: str) -> PredictionRequest:
    """Models that return vectors or scores write nothing, whatever is asked."""
    if a.task == "generate":
        if not request.osl > 0:
            raise ConfigurationError(f"osl is required and must be above 0, as {a.name} generates text")
        return request
    if engine not in ENCODERS:
        raise ConfigurationError(f"{engine} does not serve vectors or scores, as {a.name} gives; use vllm or sglang")
    return replace(request, osl=0.0)


def _parallel(request: PredictionRequest, a: Architecture, target: Device) -> tuple[int, int, int]:
    """(tp, dp, ep); only runs of mixtures of experts have experts to place, and are written down in several ways."""
    asked = request.tp, request.dp, request.ep
    return undouble(*asked, target, a.experts) if a.is_moe else (request.tp, request.dp, 1)


def undouble(tp: int, dp: int, ep: int, target: Device, experts: int) -> tuple[int, int, int]:
    """Some sources multiply TP or DP by EP (tp=64, ep=8 for eight GPUs with expert parallelism): undo what they write
    and no one runs. TP groups that fill a node are a real way to span nodes. A TP group that no node could hold,
    without a word on experts, is expert-parallel with data-parallel attention, where each rank has an expert; so are
    experts over more devices than attention is said to have."""
    node = target.devices_per_node
    if dp == 1 and ep > tp and ep % tp == 0:
        return tp, ep // tp, ep
    if ep > 2 and sorted((tp, dp)) == [1, ep * ep] and ep * ep > node:
        return (ep, 1, ep) if dp == 1 else (1, ep, ep)
    if 1 < dp == tp < node and ep == tp * dp > node:
        return 1, tp, tp
    if dp == ep == 1 and tp > 8 and min(target.link_domain_devices, experts) >= tp > node:
        return 1, tp, tp
    return tp, dp, ep


@lru_cache(maxsize=512)
def _by_name(model: str) -> Architecture:
    return resolve(model)


def _architecture(model: str | Mapping[str, Any]) -> Architecture:
    return _by_name(model) if isinstance(model, str) else resolve(model)


def _missing(name: str) -> NoReturn:
    raise ConfigurationError(f"{name} is required")


def _model(value: Any) -> str | Mapping[str, Any]:
    if isinstance(value, Mapping) or (isinstance(value, str) and value.strip()):
        return value
    raise ConfigurationError("model must be a repo id or a config object")


def _text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be text")
    return value[:200]


def _mapping(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = row.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} must be an object or null")
    return value


def _speculation(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """None also where an object says so: {"method": "none"}, {"enabled": false}, nothing but nulls. Of unknown is said
    nothing, too."""
    given = {key: value for key, value in _mapping(row, "spec_decode").items() if value is not None}
    method = str(given.get("method", "")).strip().lower()
    off = given.get("enabled") is False or given.get("num_speculative_tokens") == 0
    return None if off or method.startswith(_NO_SPECULATION) else given or None


def _number(value: Any, name: str) -> float:
    if value is None:
        _missing(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= float_info.max:
        raise ConfigurationError(f"{name} must be a number")
    return float(value)


def _positive(row: Mapping[str, Any], name: str, largest: float) -> float:
    value = _number(row.get(name), name)
    if not 0 < value <= largest:
        raise ConfigurationError(f"{name} must be above 0 and at most {largest:,.0f}")
    return value


def _count(row: Mapping[str, Any], name: str, default: int, largest: int) -> int:
    value = row.get(name)
    if value is None:
        return default
    number = _number(value, name)
    if number != int(number) or not 1 <= number <= largest:
        raise ConfigurationError(f"{name} must be an integer between 1 and {largest}")
    return int(number)


def _optional_count(row: Mapping[str, Any], name: str) -> int | None:
    return None if row.get(name) is None else _count(row, name, 1, 1_000_000)


def _load(value: Any) -> Load:
    if not isinstance(value, Mapping) or value.get("kind") not in ("closed", "open", "offline", "static"):
        raise ConfigurationError('load must be {"kind": "closed"|"open"|"offline", …}')
    kind: Kind = value["kind"]
    if kind == "offline":
        return Load("offline")
    if kind == "open":
        return Load("open", rate=_positive(value, "rate", 1e6))
    return Load(kind, concurrency=_positive(value, "concurrency", 1e6))
