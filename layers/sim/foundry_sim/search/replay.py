"""The load of a plan served event by event: how requests scatter around the predicted means, and which meet the levels.

Means of TTFT and TPOT are the plan's (learned where the method is); only the scatter around them comes from the events.
Lengths are uniform within 11 % of their mean, as benchmarks draw them; open loops arrive at random (Poisson).
"""

import numpy as np
from numpy.typing import NDArray

from foundry_sim.facts.architecture import Architecture
from foundry_sim.physics.latencies import Served, serve
from foundry_sim.physics.scheduler import Limits, Workload
from foundry_sim.search.candidates import Candidates, Floats, cache_tokens, step_model
from foundry_sim.search.judge import tpot_limit
from foundry_sim.search.plans import Gaps, Plan, Replay, SimulationRequest

_ROUNDS = 10  # requests per client, as `benchmark_command` has them: the start burst stays small
_FEWEST, _OPEN, _MOST = 200, 1000, 2000
_EVENTS = 20_000  # at most: chunks of prompts and evictions are events too
_EVICTIONS = 16  # of a request; more were not seen
_LENGTHS = 0.11
_TOKENS_MOST = 10**15


def replayed(
    request: SimulationRequest, architecture: Architecture, rows: Candidates, row: int, found: Plan
) -> Replay | None:
    """Of one replica under its load; None for models that return vectors or scores."""
    if architecture.task != "generate":
        return None
    served, asked = _served(request, architecture, rows, row, found)
    if not len(served.ttft_ms):
        return None
    ttft = served.ttft_ms * _ratio(found.predicted.ttft_ms.mean, served.ttft_ms)
    pace = _ratio(found.predicted.tpot_ms.mean, served.tpot_ms)
    share = float(np.count_nonzero(_good(request, ttft, served.tpot_ms * pace, served.output_tokens)) / asked)
    gaps = served.itl_ms
    return Replay(
        requests=asked,
        goodput_share=share,
        goodput_requests_per_s=share * found.predicted.requests_per_s,
        itl_ms=Gaps(**{name: getattr(gaps, name) * pace for name in Gaps.model_fields}),
        preemptions=served.preemptions,
    )


def _served(
    request: SimulationRequest, architecture: Architecture, rows: Candidates, row: int, found: Plan
) -> tuple[Served, int]:
    """What one replica serves, and how many requests were sent. An open loop is served at the predicted pace, as its
    queue depends on it; a closed one only stretches."""
    place = int(rows.layout_index[row])
    layout, settings = rows.layouts[place], rows.block.limits
    model = step_model(architecture, rows.block, layout)
    room = int(min(cache_tokens(rows.budgets[place], layout), _TOKENS_MOST))
    limits = Limits(room, settings.max_num_seqs * layout.dp, settings.chunk_tokens * layout.dp)
    workload = _workload(request, float(rows.load[row]), limits)
    served = serve(model, limits, workload)
    if workload.arrival_s and len(served.tpot_ms):
        served = serve(model, limits, workload, _ratio(found.predicted.tpot_ms.mean, served.tpot_ms))
    return served, len(workload.prompt_tokens)


def _workload(request: SimulationRequest, load: float, limits: Limits) -> Workload:
    work, random = request.workload, np.random.default_rng(request.seed)
    closed = work.concurrency is not None
    wanted = max(_FEWEST, _ROUNDS * round(load)) if closed else _OPEN
    count = min(wanted, _MOST, max(_FEWEST, _EVENTS // _events_each(request, load, limits)))
    prompts, outputs = (
        np.maximum(1, np.rint(mean * random.uniform(1 - _LENGTHS, 1 + _LENGTHS, count))).astype(int).tolist()
        for mean in (work.input_tokens, work.output_tokens)
    )
    if closed:
        return Workload(prompts, outputs, concurrency=max(1, round(load)))
    return Workload(prompts, outputs, arrival_s=random.exponential(1.0 / load, count).cumsum().tolist())


def _events_each(request: SimulationRequest, load: float, limits: Limits) -> int:
    """About how many events a request is: chunks of its prompt, and evictions where the clients outgrow the cache."""
    tokens_in, tokens_out = request.workload.input_tokens, request.workload.output_tokens
    crowded = request.workload.concurrency and load * (tokens_in + tokens_out) > limits.kv_tokens
    return 2 + tokens_in // limits.chunk_tokens + (min(_EVICTIONS, tokens_out // tokens_in) if crowded else 0)


def _ratio(predicted: float, values: Floats) -> float:
    """What brings the mean of the values to the predicted one."""
    mean = float(values.mean())
    return predicted / mean if mean > 0 and predicted > 0 else 1.0


def _good(request: SimulationRequest, ttft: Floats, tpot: Floats, tokens: Floats) -> NDArray[np.bool_]:
    """Which requests keep every level that was asked for."""
    levels = request.service_levels
    whole = ttft + np.maximum(tokens - 1, 0) * tpot
    pairs = ((ttft, levels.ttft_ms), (tpot, tpot_limit(request)), (whole, levels.e2e_ms))
    kept = [values <= limit for values, limit in pairs if limit is not None]
    return np.all(kept, axis=0) if kept else np.ones(len(ttft), bool)
