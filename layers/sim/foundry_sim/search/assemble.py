"""From a row of candidates to a Plan: names, predictions, memory, money and the launch command."""

import hashlib
from dataclasses import asdict
from typing import Any

from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.memory import MemoryBudget
from foundry_sim.facts.weights import Layout
from foundry_sim.outcome import Spreads
from foundry_sim.search.candidates import Block, Candidates, max_model_len
from foundry_sim.search.judge import CONSTRAINTS, Judged
from foundry_sim.search.launch import Launch, command
from foundry_sim.search.plans import (
    Plan,
    PlanLimits,
    PlanMemory,
    PlanPrecision,
    Predicted,
    SimulationRequest,
    Spread,
)

SECONDS_PER_HOUR = 3600
_MILLION = 1_000_000
_FEWEST_HOURLY = 1e-6  # tokens; a price of fewer is no number that a store keeps


def plan(request: SimulationRequest, architecture: Architecture, rows: Candidates, judged: Judged, row: int) -> Plan:
    """The plan of one row."""
    block, place = rows.block, int(rows.layout_index[row])
    layout, replicas = rows.layouts[place], int(rows.replicas[row])
    cost = int(judged.cost_nanos_per_hour[row])
    longest = max_model_len(request, architecture)
    return Plan(
        id=identity(architecture, block, layout, replicas),
        model=architecture.name,
        device_group=block.group.name,
        device=block.device.name,
        engine=block.engine,
        precision=_precision(block),
        tp=layout.tp,
        pp=layout.pp,
        ep=layout.ep,
        dp=layout.dp,
        replicas=replicas,
        devices=int(judged.devices[row]),
        limits=PlanLimits(
            max_model_len=longest,
            max_num_seqs=block.limits.max_num_seqs,
            chunk_tokens=block.limits.chunk_tokens,
            memory_utilization=block.limits.memory_utilization,
        ),
        predicted=_predicted(request, rows, judged, row, layout),
        memory=_memory(rows.budgets[place]),
        price_nanos_per_device_hour=block.price_nanos_per_hour,
        cost_nanos_per_hour=cost,
        cost_nanos_per_million_output_tokens=_unit_cost(request, cost, float(judged.output_tokens_per_s[row])),
        meets_service_levels=bool(judged.feasible[row]),
        missed=[name for name, value in zip(CONSTRAINTS, judged.excess[row], strict=True) if value > 0],
        method=request.method,
        in_domain=bool(rows.predicted.outcome.in_domain[row]),
        device_share=block.share,
        launch_command=command(launch_of(architecture, block, layout, longest)),
    )


def launch_of(architecture: Architecture, block: Block, layout: Layout, longest: int) -> Launch:
    """What starts this layout of a block; `longest` is the longest request to admit, in tokens."""
    variant = block.variant
    return Launch(
        architecture, block.engine, layout, variant.precision, block.limits, longest, variant.quantise, block.role
    )


def identity(architecture: Architecture, block: Block, layout: Layout, replicas: int) -> str:
    """Twelve hex digits that name model × group × configuration × replicas, the same in every run."""
    precision = asdict(block.variant.precision)
    parts = [architecture.name, block.group.name, block.device.name, block.engine, repr(sorted(precision.items())),
             repr(layout), repr(block.limits), str(block.share), str(replicas)]  # fmt: skip
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]


def _precision(block: Block) -> PlanPrecision:
    precision = block.variant.precision
    return PlanPrecision(**asdict(precision), label=precision.label(), quality_note=block.variant.note)


def _spread(spreads: Spreads, row: int) -> Spread:
    return Spread(**{name: round(float(getattr(spreads, name)[row]), 4) for name in Spread.model_fields})


def _predicted(request: SimulationRequest, rows: Candidates, judged: Judged, row: int, layout: Layout) -> Predicted:
    answer, replicas = rows.predicted.outcome, int(rows.replicas[row])
    work = request.workload
    requests = float(judged.output_tokens_per_s[row]) / max(1, work.output_tokens)
    output = float(judged.output_tokens_per_s[row]) if work.output_tokens else 0.0
    tokens = output or requests * work.input_tokens
    tpot = float(answer.tpot_ms.mean[row])
    return Predicted(
        ttft_ms=_spread(answer.ttft_ms, row),
        tpot_ms=_spread(answer.tpot_ms, row),
        e2e_ms=_spread(answer.e2e_ms, row),
        output_tokens_per_s=output,
        input_tokens_per_s=requests * work.input_tokens,
        requests_per_s=requests,
        tokens_per_s_per_user=1000.0 / tpot if tpot > 0 else 0.0,
        tokens_per_s_per_device=tokens / int(judged.devices[row]),
        max_concurrency=int(rows.budgets[rows.layout_index[row]].max_concurrency) * replicas,
    )


def _memory(found: MemoryBudget) -> PlanMemory:
    return PlanMemory(**{name: getattr(found, name) for name in PlanMemory.model_fields})


def _unit_cost(request: SimulationRequest, cost_nanos_per_hour: int, output_tokens_per_s: float) -> int | None:
    """nano-USD per million output tokens when the plan runs at the requested load all the time; None where hardly a
    token is asked for."""
    hourly = output_tokens_per_s * SECONDS_PER_HOUR
    if hourly < _FEWEST_HOURLY or not request.workload.output_tokens:
        return None
    return round(cost_nanos_per_hour * _MILLION / hourly)


def summary(found: Plan) -> dict[str, Any]:
    """The few facts that a headline needs."""
    layout = f"TP{found.tp}" + (f" PP{found.pp}" if found.pp > 1 else "")
    layout += (f" DP{found.dp}" if found.dp > 1 else "") + (f" EP{found.ep}" if found.ep > 1 else "")
    return {
        "layout": layout,
        "usd_per_hour": found.cost_nanos_per_hour / 1e9,
        "usd_per_million": None
        if found.cost_nanos_per_million_output_tokens is None
        else found.cost_nanos_per_million_output_tokens / 1e9,
    }
