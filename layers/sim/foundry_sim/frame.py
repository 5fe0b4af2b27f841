"""Resolved cases as columns: what the physics, the regressor and the search compute on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundry_sim.facts.memory import EngineLimits, MemoryBudget, budget
from foundry_sim.facts.versions import software_days
from foundry_sim.learned.features import Context, context
from foundry_sim.physics.steady import KINDS, Traffic
from foundry_sim.physics.step import Shape
from foundry_sim.physics.terms import Array, Terms, stack, take, terms
from foundry_sim.requests import Case

# What engines run with when nobody says otherwise: vLLM's server default, SGLang's limit by memory, TensorRT-LLM's.
DEFAULT_SEQUENCES = {"vllm": 1024, "trtllm": 2048, "sglang": 2048}
DEFAULT_CHUNK = 8192
DEFAULT_UTILIZATION = {"vllm": 0.92, "trtllm": 0.92, "sglang": 0.88}
DEFAULT_DRAFTS = 3
_ACCEPTANCE = 0.5  # of each draft token, given the ones before it; what MTP runs of DeepSeek-R1 showed


@dataclass(frozen=True, slots=True)
class Frame:
    """Columns of n rows; `cases` and `budgets` are kept for names and reports."""

    cases: tuple[Case, ...]
    budgets: tuple[MemoryBudget, ...]
    terms: Terms
    shape: Shape
    traffic: Traffic
    context: Context


def frame(cases: Sequence[Case]) -> Frame:
    """Lay cases out as columns; each distinct (architecture, device, engine, precision) is reduced once."""
    unique: dict[tuple[object, ...], int] = {}
    rows: list[Terms] = []
    index = []
    for c in cases:
        days = software_days(c.engine, c.request.engine_version, c.request.date)
        key = (id(c.architecture), c.device.name, c.engine, c.precision, days)
        if key not in unique:
            unique[key] = len(rows)
            rows.append(terms(c.architecture, c.device, c.engine, c.precision, days))
        index.append(unique[key])
    budgets = tuple(budget_of(c) for c in cases)
    shape = Shape.of(*(np.array([getattr(c, n) for c in cases], float) for n in ("tp", "pp", "ep", "dp")))
    return Frame(
        tuple(cases),
        budgets,
        take(stack(rows), np.array(index, np.intp)),
        shape,
        _traffic(cases, budgets),
        context(cases),
    )


def max_sequences(c: Case) -> int:
    """Sequences one attention rank may run at once."""
    return c.request.max_num_seqs or DEFAULT_SEQUENCES.get(c.engine, 1024)


def reserved_share(engine: str) -> float:
    """TensorRT-LLM admits only what it can finish and SGLang almost so; the others admit optimistically and preempt."""
    return {"trtllm": 1.0, "sglang": 1.0}.get(engine, 0.55)


def drafting(c: Case) -> tuple[float, float]:
    """(tokens verified, tokens produced) per sequence and step: a geometric series of acceptances."""
    spec = c.request.spec_decode
    if not spec:
        return 1.0, 1.0
    drafts = _numeric(spec.get("num_speculative_tokens"), DEFAULT_DRAFTS, 0.0, 32.0)
    rate = _numeric(spec.get("acceptance_rate"), _ACCEPTANCE, 0.0, 0.99)
    return 1.0 + drafts, float((1.0 - rate ** (drafts + 1.0)) / (1.0 - rate))


def _numeric(value: object, default: float, low: float, high: float) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else default
    return float(min(max(number, low), high))


def budget_of(c: Case) -> MemoryBudget:
    """The memory of one device of this case, for sequences of its mean length."""
    limits = EngineLimits(
        max_num_seqs=256,  # logits workspace: engines profile with their captured batch sizes
        chunk_tokens=c.request.chunk_tokens or DEFAULT_CHUNK,
        memory_utilization=c.request.memory_utilization or DEFAULT_UTILIZATION.get(c.engine, 0.9),
        speculative=bool(c.request.spec_decode),
    )
    context = max(1, round(c.request.isl + c.request.osl))
    return budget(
        c.architecture,
        c.device,
        c.precision,
        tp=c.tp,
        pp=c.pp,
        ep=c.ep,
        dp=c.dp,
        limits=limits,
        context_tokens=context,
        prompt_tokens=max(1, round(c.request.isl)),
    )


def _kv_tokens(b: MemoryBudget) -> float:
    """Cache capacity in tokens of sequences this long (windowed layers hold less than a token's full bytes).
    Without bound where the model does not fit at all: its times are then those of enough memory."""
    if not b.fits:
        return float("inf")
    return b.free_kv_bytes / max(b.kv_bytes_per_sequence, 1) * b.context_tokens


def _traffic(cases: Sequence[Case], budgets: Sequence[MemoryBudget]) -> Traffic:
    def column(values: Sequence[float]) -> Array:
        return np.array(values, dtype=np.float64)

    drafts = [drafting(c) for c in cases]
    return Traffic(
        isl=column([c.request.isl for c in cases]),
        osl=column([c.request.osl for c in cases]),
        kind=column([KINDS[c.request.load.kind] for c in cases]),
        load=column([c.request.load.amount for c in cases]),
        kv_tokens=column([_kv_tokens(b) * c.dp for c, b in zip(cases, budgets, strict=True)]),
        max_sequences=column([float(max_sequences(c) * c.dp) for c in cases]),
        chunk_tokens=column([float(c.request.chunk_tokens or DEFAULT_CHUNK) for c in cases]),
        drafted=column([d for d, _ in drafts]),
        accepted=column([a for _, a in drafts]),
        reserved=column([reserved_share(c.engine) for c in cases]),
    )
