"""Smaller questions than a search: how a model can be laid out on chosen nodes, and which cluster suits it best."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from foundry_sim.errors import SimulatorError
from foundry_sim.facts.architecture import Architecture, resolve
from foundry_sim.facts.parallel import layouts, replicas_that_fit
from foundry_sim.search.assemble import launch_of
from foundry_sim.search.candidates import Block, blocked_by, blocks, budget_of, max_model_len
from foundry_sim.search.launch import benchmark_command, command
from foundry_sim.search.plans import DeviceGroup, Plan, PlanMemory, SimulationRequest
from foundry_sim.search.search import simulate


class NodeConfiguration(BaseModel):
    """One way to run a model on a device group. ``max_replicas`` counts what the nodes can hold; ``fits`` says whether
    weights and one request of the longest length fit in memory, else ``reason``. The commands start one replica
    and load it with as many clients as the request has or the memory allows; without output there is none."""

    model_config = ConfigDict(frozen=True)

    device_group: str
    device: str
    engine: str
    precision: str
    tp: int
    pp: int
    ep: int
    dp: int
    devices: int
    max_replicas: int
    fits: bool
    reason: str
    max_concurrency: int
    memory: PlanMemory
    launch_command: str
    benchmark_command: str
    blocked: str | None = None


class Recommendation(BaseModel):
    """The best device group for a model, and what the others would cost; ``error`` when the model is not understood."""

    model_config = ConfigDict(frozen=True)

    model: str
    best: Plan | None
    alternatives: list[Plan]
    explanation: str
    error: str | None = None


def node_configurations(request: SimulationRequest) -> list[NodeConfiguration]:
    """Every valid layout on the request's groups, those that fit first, fewest devices first. Raises SimulatorError."""
    architecture = resolve(request.model)
    found = [
        _configuration(request, architecture, block, place)
        for block in blocks(request, architecture)
        for place in range(len(layouts(architecture, block.span, block.variant.precision, block.engine)))
    ]
    return sorted(found, key=lambda item: (not item.fits, item.devices, item.device_group, item.engine))


def _configuration(
    request: SimulationRequest, architecture: Architecture, block: Block, place: int
) -> NodeConfiguration:
    layout = layouts(architecture, block.span, block.variant.precision, block.engine)[place]
    longest = max_model_len(request, architecture)
    memory = budget_of(architecture, block, layout, longest)
    rule = blocked_by(request.blocked, block, layout)
    return NodeConfiguration(
        device_group=block.group.name,
        device=block.device.name,
        engine=block.engine,
        precision=block.variant.precision.label(),
        tp=layout.tp,
        pp=layout.pp,
        ep=layout.ep,
        dp=layout.dp,
        devices=layout.devices,
        max_replicas=replicas_that_fit(block.span, layout.devices, layout.tp),
        fits=memory.fits,
        reason=memory.reason,
        max_concurrency=memory.max_concurrency,
        memory=PlanMemory(**{name: getattr(memory, name) for name in PlanMemory.model_fields}),
        launch_command=command(launch_of(architecture, block, layout, longest)),
        benchmark_command=_benchmark(request, architecture, memory.max_concurrency),
        blocked=(rule.reason or "blocked") if rule else None,
    )


def _benchmark(request: SimulationRequest, architecture: Architecture, room: int) -> str:
    load = request.workload
    if architecture.task != "generate" or not room:
        return ""
    clients = min(load.concurrency or room, room)
    return benchmark_command(architecture.name, load.input_tokens, load.output_tokens, clients)


def recommend(
    models: Sequence[str | dict[str, Any]], groups: Sequence[DeviceGroup], workload: str = "chat", **options: Any
) -> list[Recommendation]:
    """For each model (bundled name or config), the device group that serves the named workload class cheapest; none
    is left out silently. ``options`` are further fields of the request, such as ``engines`` and ``blocked``."""
    return [_recommendation(model, list(groups), workload, options) for model in models]


def _recommendation(
    model: str | dict[str, Any], groups: list[DeviceGroup], workload: str, options: dict[str, Any]
) -> Recommendation:
    name = model if isinstance(model, str) else str(model.get("_name_or_path", "model"))
    request = SimulationRequest.for_class(workload, model=model, device_groups=groups, max_plans=1, **options)
    try:
        result = simulate(request)
    except SimulatorError as error:
        return Recommendation(model=name, best=None, alternatives=[], explanation=str(error), error=str(error))
    meeting: dict[str, Plan] = {}
    for plan in result.comparison:
        if plan.meets_service_levels:
            meeting.setdefault(plan.device_group, plan)
    ranked = sorted(meeting.values(), key=lambda plan: plan.cost_nanos_per_hour)
    return Recommendation(
        model=name,
        best=ranked[0] if ranked else None,
        alternatives=ranked[1:],
        explanation=result.headline if ranked else result.explanation,
    )
