"""From requests to predictions: resolve, lay out as columns, closed form, correction, answer.

`predict` answers lists of requests of any mixture; `predict_arrays` answers many configurations of one architecture on
one device, which is what a search needs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foundry_sim.encode import NEVER_MS, encoded, full_batch
from foundry_sim.errors import SimulatorError
from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.devices import Device
from foundry_sim.facts.engines import engine_name
from foundry_sim.facts.memory import MemoryBudget
from foundry_sim.facts.precision import Precision
from foundry_sim.facts.versions import days as calendar_days
from foundry_sim.facts.versions import software_days
from foundry_sim.frame import DEFAULT_CHUNK, DEFAULT_SEQUENCES, budget_of, frame, max_sequences, reserved_share
from foundry_sim.learned.features import Facts, facts
from foundry_sim.learned.regressor import correction
from foundry_sim.outcome import Outcome, Spreads, outcome
from foundry_sim.physics.steady import KINDS, LONGEST_QUEUE, Steady, Traffic, steady
from foundry_sim.physics.step import Shape
from foundry_sim.physics.terms import Array, Terms, stack, terms
from foundry_sim.requests import Case, Id, Load, PredictionRequest, case

__all__ = [
    "ArrayPrediction",
    "Load",
    "Method",
    "Prediction",
    "PredictionRequest",
    "Spread",
    "predict",
    "predict_arrays",
]

Method = Literal["regressor", "heuristic"]
# What malformed input can raise below us besides the simulator's own errors; none may end a batch.
_HOSTILE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds. `lo` and `hi` bound the mean with 90 % probability."""

    mean: float
    p50: float
    p95: float
    p99: float
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one request; `error` says in one sentence why there is none."""

    id: Id
    fits: bool = False
    ttft_ms: Spread | None = None
    tpot_ms: Spread | None = None
    e2e_ms: Spread | None = None
    output_tokens_per_s: float | None = None
    requests_per_s: float | None = None
    per_gpu: float | None = None
    max_concurrency: int = 0
    memory: MemoryBudget | None = None
    in_domain: bool = False
    method: Method = "regressor"
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ArrayPrediction:
    """Columns of a search; milliseconds and tokens/s, shape: configurations. `*_hi` are upper 90 % bounds."""

    outcome: Outcome
    room: Array  # sequences that cache and limits admit at once
    fits: NDArray[np.bool_]


def predict(requests: Sequence[PredictionRequest], method: Method = "regressor") -> list[Prediction]:
    """One prediction per request, in order; what cannot be predicted carries its error."""
    found: list[Prediction | None] = [None] * len(requests)
    cases: list[Case] = []
    places: list[int] = []
    for place, request in enumerate(requests):
        resolved = _resolved(request)
        if isinstance(resolved, str):
            found[place] = Prediction(request.id, method=method, error=resolved)
        else:
            cases.append(resolved)
            places.append(place)
    for place, answer in zip(places, _answers(cases, method), strict=True):
        found[place] = answer
    return [p for p in found if p is not None]


def _resolved(request: PredictionRequest) -> Case | str:
    try:
        resolved = case(request)
        budget_of(resolved)
    except SimulatorError as error:
        return str(error)
    except _HOSTILE:
        return "this row cannot be interpreted; check the model's config and the parallel sizes"
    return resolved


def _answers(cases: Sequence[Case], method: Method) -> Iterable[Prediction]:
    written = iter(_generated([c for c in cases if c.architecture.task == "generate"], method))
    return [next(written) if c.architecture.task == "generate" else _encoded(c, method) for c in cases]


def _encoded(c: Case, method: Method) -> Prediction:
    """Of a model that returns vectors or scores, as the search has it; offline is full batches one after the other.
    Copies (dp) share the load."""
    memory, load, tokens = budget_of(c), c.request.load, max(1, round(c.request.isl))
    chunk = c.request.chunk_tokens or DEFAULT_CHUNK
    amount = float(full_batch(tokens, chunk)) if load.kind == "offline" else load.amount / c.dp
    answer, _ = encoded(
        c.architecture, c.device, c.engine, c.precision, [c.layout], np.zeros(1, np.intp), np.array([amount]),
        tokens=tokens, chunk_tokens=chunk, closed=load.kind != "open",
    )  # fmt: skip
    if answer.e2e_ms.mean[0] >= NEVER_MS:
        return Prediction(c.request.id, memory=memory, method=method, error="more requests arrive than can be answered")
    return _told(c, memory, answer, 0, method, c.dp * float(answer.output_tokens_per_s[0]))


def _generated(cases: Sequence[Case], method: Method) -> Sequence[Prediction]:
    if not cases:
        return []
    rows = frame(cases)
    with np.errstate(all="ignore"):
        state = steady(rows.terms, rows.shape, rows.traffic)
        answer = outcome(
            rows.traffic, state, correction(rows.terms, rows.shape, rows.traffic, state, rows.context, method)
        )
    answer = replace(answer, in_domain=answer.in_domain & ~_crowded(rows.traffic, state))
    rates = answer.output_tokens_per_s / rows.traffic.osl
    return [_told(c, rows.budgets[i], answer, i, method, float(rates[i])) for i, c in enumerate(rows.cases)]


def _crowded(x: Traffic, s: Steady) -> NDArray[np.bool_]:
    """Queues longer than any that was measured: of a closed loop, and of an open one that gets more than it answers."""
    saturated = (x.kind == KINDS["open"]) & (s.requests_per_s < 0.99 * x.load)
    return np.asarray(saturated | (x.kind == KINDS["closed"]) & (x.load > LONGEST_QUEUE * s.batch), np.bool_)


def _told(c: Case, memory: MemoryBudget, answer: Outcome, i: int, method: Method, requests_per_s: float) -> Prediction:
    """A configuration that does not fit still gets its times, as if memory sufficed: `fits` says that it does not."""
    first, token, whole = (_spread(s, i) for s in (answer.ttft_ms, answer.tpot_ms, answer.e2e_ms))
    rate = requests_per_s * c.request.osl
    numbers = [value for spread in (first, token, whole) for value in asdict(spread).values()]
    if not np.isfinite([requests_per_s, rate, *numbers]).all():
        return Prediction(c.request.id, memory=memory, method=method, error="the lengths or load cannot be computed")
    held = min(memory.free_kv_bytes // max(memory.kv_bytes_per_sequence, 1), max_sequences(c)) * c.dp
    return Prediction(
        id=c.request.id,
        fits=memory.fits,
        ttft_ms=first,
        tpot_ms=token,
        e2e_ms=whole,
        output_tokens_per_s=rate,
        requests_per_s=requests_per_s,
        per_gpu=rate / c.layout.devices,
        max_concurrency=held,
        memory=replace(memory, max_concurrency=held),
        in_domain=memory.fits and bool(answer.in_domain[i]) and _within_context(c),
        method=method,
    )


def _within_context(c: Case) -> bool:
    """Beyond the model's own context: positions can be stretched (RoPE scaling), and were where this was measured."""
    return c.request.isl + c.request.osl <= c.architecture.max_position


def _spread(s: Spreads, i: int) -> Spread:
    return Spread(*(float(v[i]) for v in (s.mean, s.p50, s.p95, s.p99, s.lo, s.hi)))


def predict_arrays(
    architecture: Architecture,
    device: Device,
    precision: Precision,
    *,
    tp: ArrayLike,
    pp: ArrayLike = 1,
    ep: ArrayLike = 1,
    dp: ArrayLike = 1,
    isl: ArrayLike,
    osl: ArrayLike,
    kind: str = "closed",
    load: ArrayLike,
    kv_tokens: ArrayLike,
    engine: str = "vllm",
    engine_version: str | None = None,
    date: str | None = None,
    max_sequences: ArrayLike | None = None,
    chunk_tokens: ArrayLike = DEFAULT_CHUNK,
    drafted: ArrayLike = 1.0,
    accepted: ArrayLike = 1.0,
    method: Method = "regressor",
) -> ArrayPrediction:
    """Many configurations of one architecture on one device; every array broadcasts to the common shape (n,).

    `kv_tokens` is the cache capacity of the whole instance (all dp ranks), `max_sequences` its limit on running
    sequences; `load` is a concurrency or a rate, as `kind` says. Rows with no cache have `fits` False.
    """
    engine = engine_name(engine)
    limit = DEFAULT_SEQUENCES.get(engine, 1024) * np.asarray(dp, float) if max_sequences is None else max_sequences
    given = (tp, pp, ep, dp, isl, osl, load, kv_tokens, limit, chunk_tokens, drafted, accepted)
    columns = np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, float)) for v in given))
    age = software_days(engine, engine_version, date)
    base = stack([terms(architecture, device, engine, precision, age)])
    share = reserved_share(engine)
    parts = [
        _block(
            base,
            [c[i : i + _BLOCK] for c in columns],
            KINDS[kind],
            facts(device, engine, age, calendar_days(date)),
            share,
            method,
        )
        for i in range(0, len(columns[0]), _BLOCK)
    ]
    return _joined(parts)


_BLOCK = 16384  # rows at once: the columns stay in the processor's cache


def _block(
    base: Terms, columns: Sequence[Array], kind: float, known: Facts, reserved: float, method: Method
) -> ArrayPrediction:
    tp, pp, ep, dp, isl, osl, load, kv, limit, chunk, drafted, accepted = columns
    count = len(tp)
    x = Traffic(
        isl,
        osl,
        np.full(count, kind),
        load,
        np.maximum(kv, 1.0),
        limit,
        chunk,
        drafted,
        accepted,
        np.full(count, reserved),
    )
    shape = Shape(tp, pp, ep, dp)
    with np.errstate(all="ignore"):
        state = steady(base, shape, x)
        answer = outcome(x, state, correction(base, shape, x, state, known.columns(count), method))
    return ArrayPrediction(answer, state.room, kv >= isl + osl)


def _joined(parts: Sequence[ArrayPrediction]) -> ArrayPrediction:
    if len(parts) == 1:
        return parts[0]

    def spreads(name: str) -> Spreads:
        found = [getattr(p.outcome, name) for p in parts]
        return Spreads(*(np.concatenate([getattr(s, f.name) for s in found]) for f in fields(Spreads)))

    def flat(name: str) -> Array:
        return np.concatenate([getattr(p.outcome, name) for p in parts])

    joined = Outcome(
        spreads("ttft_ms"),
        spreads("tpot_ms"),
        spreads("e2e_ms"),
        flat("output_tokens_per_s"),
        flat("output_tokens_per_s_lo"),
        flat("output_tokens_per_s_hi"),
        np.concatenate([p.outcome.in_domain for p in parts]),
    )
    return ArrayPrediction(joined, np.concatenate([p.room for p in parts]), np.concatenate([p.fits for p in parts]))
