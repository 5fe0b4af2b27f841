"""The search: enumerate, predict, judge, rank. Exact wherever the space is a product of small sets."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundry_sim.errors import ConfigurationError
from foundry_sim.facts.architecture import Architecture, resolve
from foundry_sim.facts.devices import prices_as_of
from foundry_sim.search.assemble import plan, summary
from foundry_sim.search.candidates import Candidates, Floats, blocks, candidates
from foundry_sim.search.judge import Judged, judge
from foundry_sim.search.plans import Fleet, ParetoPoint, Plan, Replay, SimulationRequest, SimulationResult
from foundry_sim.search.replay import replayed

_PARETO_POINTS = 60


@dataclass(frozen=True, slots=True)
class Table:
    """All rows of all blocks; ``start`` maps a global row to its block."""

    parts: tuple[tuple[Candidates, Judged], ...]
    start: NDArray[np.intp]

    def __len__(self) -> int:
        return int(self.start[-1])

    def column(self, name: str) -> Floats:
        return np.concatenate([np.asarray(getattr(judged, name), float) for _, judged in self.parts])

    def where(self, row: int) -> tuple[Candidates, Judged, int]:
        part = int(np.searchsorted(self.start, row, side="right")) - 1
        rows, judged = self.parts[part]
        return rows, judged, row - int(self.start[part])


def evaluate(request: SimulationRequest, architecture: Architecture) -> Table:
    """Every candidate of the request, predicted and judged."""
    parts = []
    for block in blocks(request, architecture):
        rows = candidates(request, architecture, block)
        if rows is not None:
            parts.append((rows, judge(request, rows)))
    return Table(tuple(parts), np.cumsum([0, *(len(rows) for rows, _ in parts)]).astype(np.intp))


def simulate(request: SimulationRequest) -> SimulationResult:
    """The cheapest plans that meet the service levels; what would, when none does. Raises SimulatorError on input that
    cannot be understood; never returns an infeasible plan among ``plans``."""
    started = time.perf_counter()
    architecture = resolve(request.model)
    check(request, architecture)
    warnings = _output_warnings(request, architecture)
    request = _without_output(request, architecture)
    table = evaluate(request, architecture)
    if not table.parts:
        return _nothing_fits(request, architecture, started)
    order = ranking(table)
    chosen = [row for row in _distinct(table, order) if feasible_at(table, row)]
    plans = [_plan_at(request, architecture, table, row) for row in chosen[: request.max_plans]]
    found = _found(request, architecture, table, plans)
    mixtures = _mixtures(request, architecture, bool(plans))
    return SimulationResult(
        feasible=bool(plans),
        model=architecture.name,
        plans=plans,
        comparison=_comparison(request, architecture, table, order),
        pareto=_pareto(request, architecture, table),
        fleets=mixtures,
        replay=_replay(request, architecture, table, chosen[0], plans[0]) if plans else None,
        warnings=_warnings(request, architecture, plans) + warnings,
        considered=len(table),
        feasible_count=int(np.count_nonzero(table.column("violation") <= 0.0)),
        **_common(request, started),
        **found,
    )


def check(request: SimulationRequest, architecture: Architecture) -> None:
    """Raise ConfigurationError for what no configuration could serve."""
    work = _without_output(request, architecture).workload
    length = work.input_tokens + work.output_tokens
    if architecture.task == "generate" and work.output_tokens < 1:
        raise ConfigurationError(
            f"output_tokens must be at least 1, as {architecture.name} generates text; the workload class 'embedding' "
            "is for models that return vectors or scores, such as BAAI/bge-m3"
        )
    if length > architecture.max_position:
        limit = f"{architecture.max_position:,}"
        raise ConfigurationError(f"input and output need {length:,} tokens; {architecture.name} takes {limit}")
    if request.max_model_len and length > request.max_model_len:
        limit = f"{request.max_model_len:,}"
        raise ConfigurationError(
            f"input and output need {length:,} tokens, but max_model_len admits {limit}; raise it or leave it out"
        )


def _without_output(request: SimulationRequest, architecture: Architecture) -> SimulationRequest:
    """The request as a model hears it that returns vectors or scores."""
    if architecture.task == "generate":
        return request
    work = request.workload.model_copy(update={"output_tokens": 0})
    return request.model_copy(update={"workload": work})


def _output_warnings(request: SimulationRequest, architecture: Architecture) -> list[str]:
    if architecture.task == "generate" or not request.workload.output_tokens:
        return []
    return [f"{architecture.name} writes no tokens: the {request.workload.output_tokens:,} output tokens are ignored."]


def ranking(table: Table) -> NDArray[np.intp]:
    """Rows from best to worst: feasible by cost, then by devices and speed; infeasible by how much they miss."""
    violation = table.column("violation")
    keys = (table.column("e2e_ms"), table.column("devices"), table.column("cost_nanos_per_hour"), violation)
    return np.lexsort(keys).astype(np.intp)


def feasible_at(table: Table, row: int) -> bool:
    _, judged, place = table.where(row)
    return bool(judged.feasible[place])


def _distinct(table: Table, order: NDArray[np.intp]) -> list[int]:
    """One row per configuration, the best-ranked number of replicas of each."""
    seen: set[tuple[int, int]] = set()
    kept = []
    for row in order.tolist():
        part = int(np.searchsorted(table.start, row, side="right")) - 1
        rows, _ = table.parts[part]
        key = (part, int(rows.layout_index[row - int(table.start[part])]))
        if key not in seen:
            seen.add(key)
            kept.append(row)
    return kept


def _plan_at(request: SimulationRequest, architecture: Architecture, table: Table, row: int) -> Plan:
    rows, judged, place = table.where(row)
    return plan(request, architecture, rows, judged, place)


def _replay(
    request: SimulationRequest, architecture: Architecture, table: Table, row: int, best: Plan
) -> Replay | None:
    rows, _, place = table.where(row)
    return replayed(request, architecture, rows, place, best)


def _comparison(
    request: SimulationRequest, architecture: Architecture, table: Table, order: NDArray[np.intp]
) -> list[Plan]:
    """The best of each device group and engine, so that none hides behind another."""
    best: dict[tuple[str, str], int] = {}
    for row in order.tolist():
        block = table.where(row)[0].block
        best.setdefault((block.group.name, block.engine), row)
    return [_plan_at(request, architecture, table, row) for row in best.values()]


def _pareto(request: SimulationRequest, architecture: Architecture, table: Table) -> list[ParetoPoint]:
    """The front of speed per user against throughput per device, over everything that fits."""
    tpot = np.concatenate([np.asarray(rows.predicted.outcome.tpot_ms.mean) for rows, _ in table.parts])
    speed = 1000.0 / np.maximum(tpot, 1e-9)
    density = table.column("output_tokens_per_s") / table.column("devices")
    points = []
    for row in front(speed, density)[:_PARETO_POINTS].tolist():
        found = _plan_at(request, architecture, table, row)
        points.append(
            ParetoPoint(
                plan_id=found.id,
                tokens_per_s_per_user=found.predicted.tokens_per_s_per_user,
                tokens_per_s_per_device=found.predicted.tokens_per_s_per_device,
                device_group=found.device_group,
                engine=found.engine,
                feasible=found.meets_service_levels,
            )
        )
    return points


def front(first: Floats, second: Floats) -> NDArray[np.intp]:
    """Rows that no other row beats in both columns, by falling ``first``."""
    order = np.lexsort((-second, -first))
    best = np.maximum.accumulate(second[order])
    rising = np.concatenate([[True], second[order][1:] > best[:-1]])
    return np.asarray(order[rising], np.intp)


def _found(
    request: SimulationRequest, architecture: Architecture, table: Table, plans: list[Plan]
) -> dict[str, object]:
    from foundry_sim.search.infeasible import binding_when_met, explain

    if not plans:
        return explain(request, architecture, table)
    best = plans[0]
    facts = summary(best)
    unit = facts["usd_per_million"]
    tail = "" if unit is None else f", ${unit:,.2f} per 1M output tokens"
    headline = (
        f"{best.model} on {best.replicas} × {best.device} {facts['layout']} with {best.engine}: "
        f"${facts['usd_per_hour']:,.2f}/h{tail}"
    )
    binding, why = binding_when_met(request, best)
    return {"headline": headline, "binding_constraint": binding, "explanation": why}


def _mixtures(request: SimulationRequest, architecture: Architecture, met: bool) -> list[Fleet]:
    """Fleets, cheapest first: when asked for, and when no single plan can do it."""
    if request.mode == "shared" or (met and not request.mixed):
        return []
    from foundry_sim.search.disaggregated import disaggregated
    from foundry_sim.search.fleet import fleets

    found = fleets(request, architecture) if len(request.device_groups) > 1 else []
    if request.mixed:
        found = found + disaggregated(request, architecture)
    return sorted(found, key=lambda fleet: fleet.cost_nanos_per_hour)


def _nothing_fits(request: SimulationRequest, architecture: Architecture, started: float) -> SimulationResult:
    from foundry_sim.search.infeasible import explain_memory

    return SimulationResult(
        feasible=False,
        model=architecture.name,
        plans=[],
        comparison=[],
        pareto=[],
        considered=0,
        feasible_count=0,
        **_common(request, started),
        **explain_memory(request, architecture),
    )


def _common(request: SimulationRequest, started: float) -> dict[str, Any]:
    return {
        "purchase": request.purchase,
        "prices_as_of": prices_as_of()[0],
        "elapsed_ms": round((time.perf_counter() - started) * 1e3, 1),
        "seed": request.seed,
    }


def _warnings(request: SimulationRequest, architecture: Architecture, plans: list[Plan]) -> list[str]:
    found = []
    if any(group.price_nanos_per_hour is None for group in request.device_groups):
        found.append(f"Prices are assumptions of {prices_as_of()[0]}; give your own for a real comparison.")
    if plans and not plans[0].in_domain:
        found.append("The best plan lies outside the measured data, so its interval is wide: benchmark it first.")
    if plans and _spans_nodes(request, plans[0]):
        found.append(
            "A replica of the best plan spans nodes: start its command on each, with the engine's options for it."
        )
    if not architecture.family_known:
        found.append(f"Model type {architecture.model_type} is unknown: its config was read like Llama's.")
    if not architecture.vision_counted:
        found.append("The vision part of this model is not counted: memory and time are those of its text part.")
    if architecture.task != "generate":
        found.append(f"{architecture.name} returns vectors or scores: only time to result and throughput apply.")
    return found


def _spans_nodes(request: SimulationRequest, plan: Plan) -> bool:
    nodes = {group.name: group.devices_per_node for group in request.device_groups}
    return plan.tp * plan.pp * plan.dp > nodes.get(plan.device_group, plan.devices)
