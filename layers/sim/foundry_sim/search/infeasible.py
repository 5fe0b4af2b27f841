"""When nothing meets the service levels: what binds, how near this hardware comes, which hardware would do."""

import math
from typing import Any

import numpy as np

from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.parallel import layouts
from foundry_sim.search.assemble import plan
from foundry_sim.search.candidates import (
    Block,
    blocked_by,
    blocks,
    budget_of,
    fitting,
    max_model_len,
    most_replicas,
)
from foundry_sim.search.capacity import carried_rate
from foundry_sim.search.hardware import suggestions
from foundry_sim.search.judge import CONSTRAINTS, Judged, cautious, judge
from foundry_sim.search.plans import (
    Nearest,
    Plan,
    ServiceLevels,
    SimulationRequest,
    Spread,
)
from foundry_sim.search.search import Table, ranking

_LABELS = {
    "ttft": "time to first token",
    "tokens_per_second": "tokens per second per user",
    "e2e": "end-to-end time",
    "throughput": "the request rate",
    "memory": "memory",
}
_CAUTIOUSLY = (
    " at the cautious bound; the expected values meet the service levels, so benchmark it before you refuse it"
)


def explain(request: SimulationRequest, architecture: Architecture, table: Table) -> dict[str, Any]:
    """The fields of an infeasible result."""
    row = int(ranking(table)[0])
    rows, judged, place = table.where(row)
    nearest = plan(request, architecture, rows, judged, place)
    levels = reachable(request, judged, place)
    # An overloaded queue has no meaningful latency: say what rate it could carry instead.
    overloaded = "throughput" in nearest.missed
    binding = "throughput" if overloaded else CONSTRAINTS[int(np.argmax(judged.excess[place]))]
    named = ["throughput"] if overloaded else nearest.missed
    missed = ", ".join(
        _overload(request, architecture) if name == "throughput" else _miss(request, name, judged, place)
        for name in named
    )
    likely = request.confidence == "upper" and bool(judge(_expecting(request), rows).feasible[place])
    failing = "carries the load" if overloaded else f"{'is sure to meet' if likely else 'meets'} the service levels"
    return {
        "headline": f"No plan {failing}: {_LABELS[binding]} binds",
        "binding_constraint": binding,
        "explanation": f"The nearest plan ({nearest.device_group}, {nearest.engine}, TP{nearest.tp}, "
        f"{nearest.replicas} replica{'' if nearest.replicas == 1 else 's'}) misses {missed}"
        f"{_CAUTIOUSLY if likely else ''}.",
        "nearest": Nearest(service_levels=levels, plan=nearest),
        "hardware": suggestions(request, architecture),
    }


def _expecting(request: SimulationRequest) -> SimulationRequest:
    return request.model_copy(update={"confidence": "expected"})


def _miss(request: SimulationRequest, name: str, judged: Judged, row: int) -> str:
    levels = request.service_levels
    if name == "ttft":
        return f"TTFT {judged.ttft_ms[row]:,.0f} ms against {levels.ttft_ms:,.0f}"
    if name == "tokens_per_second":
        return f"{1000 / judged.tpot_ms[row]:,.1f} tokens/s per user against {levels.tokens_per_second:,.1f}"
    return f"E2E {judged.e2e_ms[row]:,.0f} ms against {levels.e2e_ms:,.0f}"


def _overload(request: SimulationRequest, architecture: Architecture) -> str:
    """What rate the hardware carries: the occupancy of an overloaded queue counts its backlog and cannot say it."""
    rate, note = carried_rate(request, architecture), ""
    if not rate:
        rate = carried_rate(request.model_copy(update={"service_levels": ServiceLevels()}), architecture)
        note = ", but not within the service levels"
    said = f"about {_down(rate, 3):,.10g}" if rate else "next to none"
    return f"the load: {said} of {request.workload.rate_per_s:,.10g} requests/s can be carried{note}"


def reachable(request: SimulationRequest, judged: Judged, row: int) -> ServiceLevels:
    """The requested levels, with the missed ones loosened until this row meets them (rounded outwards). When the
    arriving rate is too high no level helps, and the requested ones come back."""
    levels = request.service_levels
    update: dict[str, float] = {}
    if judged.excess[row][-1] > 0:
        return levels
    if levels.ttft_ms is not None and judged.ttft_ms[row] > levels.ttft_ms:
        update["ttft_ms"] = _up(judged.ttft_ms[row])
    if levels.e2e_ms is not None and judged.e2e_ms[row] > levels.e2e_ms:
        update["e2e_ms"] = _up(judged.e2e_ms[row])
    if levels.tokens_per_second is not None and judged.excess[row][1] > 0:
        update["tokens_per_second"] = _down(1000.0 / judged.tpot_ms[row])
    return levels.model_copy(update=update)


def _up(value: float) -> float:
    """Two significant digits, rounded up."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(float(value) / scale) * scale


def _down(value: float, digits: int = 2) -> float:
    scale = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return math.floor(float(value) / scale) * scale


def explain_memory(request: SimulationRequest, architecture: Architecture) -> dict[str, Any]:
    """The fields of a result when no configuration that is allowed holds the model and one request."""
    most = _most_replicas(request, architecture)
    if most:
        return _no_plan(
            f"{request.replicas} replicas of {architecture.name} do not fit on this hardware",
            "replicas",
            f"It holds at most {most}: ask for fewer replicas, or for as few as needed.",
        )
    hardware = suggestions(request, architecture)
    rules = _blocking(request, architecture)
    if rules:
        headline = f"Every configuration of {architecture.name} that fits this hardware is blocked"
        return _no_plan(headline, "blocked", f"Blocked before: {'; '.join(rules)}.", hardware=hardware)
    reasons = [reason for block in blocks(request, architecture) if (reason := _shortage(request, architecture, block))]
    engines = ", ".join(request.engines)
    why = reasons[0] if reasons else f"none of {engines} runs this model on these devices"
    headline = f"{architecture.name} does not fit on this hardware"
    return _no_plan(headline, "memory", f"{why[0].upper()}{why[1:]}.", hardware=hardware)


def _no_plan(headline: str, binding: str, explanation: str, **more: Any) -> dict[str, Any]:
    return {"headline": headline, "binding_constraint": binding, "explanation": explanation, "nearest": None, **more}


def _most_replicas(request: SimulationRequest, architecture: Architecture) -> int:
    """Of the configurations that fit in memory and are not blocked; 0 when none does."""
    counts = (
        most_replicas(request, block, layout)
        for block in blocks(request, architecture)
        for layout in fitting(request, architecture, block)[0]
    )
    return max(counts, default=0)


def _blocking(request: SimulationRequest, architecture: Architecture) -> list[str]:
    """The reasons of the rules that forbid what would fit, each once."""
    found: dict[str, None] = {}
    for block in blocks(request, architecture):
        for layout in layouts(architecture, block.span, block.variant.precision, block.engine):
            rule = blocked_by(request.blocked, block, layout)
            if rule and budget_of(architecture, block, layout, max_model_len(request, architecture)).fits:
                found[rule.reason or "without a reason"] = None
    return list(found)


def _shortage(request: SimulationRequest, architecture: Architecture, block: Block) -> str:
    """Why even the widest layout of this block does not fit."""
    found = layouts(architecture, block.span, block.variant.precision, block.engine)
    if not found:
        return f"{architecture.name} cannot be split over {block.group.name}'s devices"
    widest = max(found, key=lambda layout: layout.devices)
    answer = budget_of(architecture, block, widest, max_model_len(request, architecture))
    return f"on {block.group.name} with {widest.devices} devices, {answer.reason}"


def binding_when_met(request: SimulationRequest, best: Plan) -> tuple[str | None, str]:
    """The limit with the least headroom on the best plan, and how much that is."""
    levels = request.service_levels
    used: dict[str, float] = {}
    if levels.ttft_ms is not None:
        used["ttft"] = _judged(request, best.predicted.ttft_ms) / levels.ttft_ms
    if levels.tokens_per_second is not None and request.workload.output_tokens > 1:
        used["tokens_per_second"] = _judged(request, best.predicted.tpot_ms) * levels.tokens_per_second / 1000.0
    if levels.e2e_ms is not None:
        used["e2e"] = _judged(request, best.predicted.e2e_ms) / levels.e2e_ms
    if not used:
        return None, "No service level was asked for: the cheapest plan that fits in memory comes first."
    name = max(used, key=lambda key: used[key])
    kind = "cautious bound of the " if request.confidence == "upper" else ""
    label = _LABELS[name].capitalize()
    return name, f"{label} binds: the {kind}{levels.statistic} uses {used[name]:.0%} of its limit."


def _judged(request: SimulationRequest, spread: Spread) -> float:
    """What the search compared with the limit."""
    value = float(getattr(spread, request.service_levels.statistic))
    mean, hi = np.array(spread.mean), np.array(spread.hi)
    return float(cautious(np.array(value), mean, hi)) if request.confidence == "upper" else value
