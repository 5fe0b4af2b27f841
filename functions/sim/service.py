"""The rules of simulations: what may be asked, how it is answered, and what is kept of the answer."""

from functools import cache
from typing import Any

from foundry_core import runs
from foundry_core.clock import now_ms
from foundry_core.errors import Invalid, NotFound
from foundry_core.events import Event, new_event
from foundry_core.ids import new_id
from foundry_core.runs import Run, RunStatus
from foundry_core.sizes import check_storable
from foundry_sim.errors import SimulatorError
from foundry_sim.facts import devices
from foundry_sim.facts.architecture import Architecture, ArchitectureError, from_config
from foundry_sim.search.plans import Plan, SimulationRequest, SimulationResult
from foundry_sim.search.queries import NodeConfiguration, Recommendation, node_configurations, recommend
from foundry_sim.search.search import check, simulate
from pydantic import ValidationError

from functions.sim import blocked, calibrations, store
from functions.sim.errors import InvalidInput
from functions.sim.names import known_config, refuse_unknown, usable_groups
from functions.sim.schemas import (
    Device,
    DevicePage,
    ModelRef,
    Outcome,
    RecommendationsAsk,
    Simulation,
    SimulationCreate,
    SimulationDetail,
    SimulationStatus,
)

MAX_REQUEST_BYTES = 320 * 1024  # an item holds 400 KB
_KEPT_COMPARISONS = 16
_ENDED = {
    RunStatus.FAILED: SimulationStatus.FAILED,
    RunStatus.CANCELLED: SimulationStatus.CANCELLED,
}


@cache
def device_page() -> DevicePage:
    as_of, note = devices.prices_as_of()
    found = [devices.device(name) for name in devices.names()]
    items = [Device(**{name: getattr(one, name) for name in Device.model_fields}) for one in found]
    return DevicePage(items=items, prices_as_of=as_of, prices_note=note)


def create(project_id: str, request: SimulationCreate, user_id: str) -> tuple[Simulation, Run]:
    """Raises ``ModelNotFound``, ``Invalid`` (``config_invalid``, ``no_devices``), ``InvalidInput``, ``TooLarge``."""
    check_storable(request.model_dump(), what="simulation", max_bytes=MAX_REQUEST_BYTES)
    resolved(request)
    known = calibrations.current(project_id).version
    reference = request.model if isinstance(request.model, ModelRef) else None
    simulation = Simulation(
        id=new_id("sim"), project_id=project_id, status=SimulationStatus.RUNNING,
        model_id=reference.id if reference else None, model_name=reference.name if reference else str(request.model),
        workload=request.workload, service_levels=request.service_levels, purchase=request.purchase,
        calibration_version=known, created_by=user_id, created_at_ms=now_ms(),
    )  # fmt: skip
    store.insert(simulation, request, _event(simulation, "created"))
    run = runs.create("simulate", subject_id=simulation.id, created_by=user_id, project_id=project_id)

    def note(simulation: Simulation) -> None:
        simulation.run_id = run.id

    return store.update(project_id, simulation.id, note), run


def _event(simulation: Simulation, what: str, **data: Any) -> Event:
    facts = {"simulation_id": simulation.id, "project_id": simulation.project_id, "model": simulation.model_name}
    name = f"foundry.simulation.{what}.v1"
    return new_event(name, source="sim", subject=simulation.id, data={**facts, **data})


def resolved_for(simulation: Simulation) -> SimulationRequest:
    """The request of a simulation, with the measurements that its project had when it was asked."""
    points = calibrations.at(simulation.project_id, simulation.calibration_version).points
    return resolved(store.load_request(simulation.id)).model_copy(update={"calibration": points})


def resolved(request: SimulationCreate) -> SimulationRequest:
    """The request as the simulator takes it: names looked up, groups that cannot be planned for left out."""
    groups = usable_groups(request.device_groups)
    plain = request.model_dump(exclude={"model", "device_groups", "blocked"})
    refuse_unknown(request.engines)
    config, architecture = _model(request)
    rules = [*request.blocked, *blocked.rules(config["_name_or_path"], blocked.every())]
    try:
        found = SimulationRequest(model=config, device_groups=groups, blocked=rules, **plain)
        check(found, architecture)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{where}: {first['msg']}") from error
    except SimulatorError as error:
        raise InvalidInput(str(error)) from error
    return found


def _model(request: SimulationCreate) -> tuple[dict[str, Any], Architecture]:
    """A config with a name in it, and what it describes; a known name never becomes a path."""
    if isinstance(request.model, ModelRef):
        config, name = request.model.config, request.model.name
    else:
        config, name = known_config(request.model), request.model
    try:
        return {**config, "_name_or_path": name}, from_config(config, name)
    except ArchitectureError as error:
        raise Invalid(str(error), code="config_invalid",
                      errors=[{"field": "model.config", "detail": str(error)}]) from error  # fmt: skip


def search(request: SimulationRequest) -> SimulationResult:
    """Raises ``InvalidInput`` for what the simulator cannot understand. Infeasible is a result."""
    try:
        return simulate(request)
    except SimulatorError as error:
        raise InvalidInput(str(error)) from error


def layouts(request: SimulationCreate) -> list[NodeConfiguration]:
    """Every valid way to lay the model out on the request's groups. Raises as ``create``."""
    try:
        return node_configurations(resolved(request))
    except SimulatorError as error:
        raise InvalidInput(str(error)) from error


def recommendations(asked: RecommendationsAsk) -> list[Recommendation]:
    """For each model the cheapest group; one that none can serve says so in its own item."""
    groups = usable_groups(asked.device_groups)
    for name in asked.models:
        known_config(name)
    kept = blocked.every()
    try:
        return [
            found
            for name in asked.models
            for found in recommend([name], groups, asked.workload_class, blocked=blocked.rules(name, kept))
        ]
    except SimulatorError as error:
        raise InvalidInput(str(error)) from error


def outcome_of(result: SimulationResult) -> Outcome:
    facts = {name: getattr(result, name) for name in Outcome.model_fields}
    return Outcome(**{**facts, "comparison": result.comparison[:_KEPT_COMPARISONS]})


def complete(project_id: str, simulation_id: str, outcome: Outcome, plans: list[Plan]) -> Simulation:
    """Keep the answer; a second time it is the same."""
    store.put_result(simulation_id, outcome, plans)

    def apply(simulation: Simulation) -> Event | None:
        already = simulation.status == SimulationStatus.COMPLETED
        simulation.status, simulation.feasible = SimulationStatus.COMPLETED, outcome.feasible
        simulation.headline, simulation.plan_count = outcome.headline, len(plans)
        simulation.completed_at_ms = simulation.completed_at_ms or now_ms()
        return None if already else _event(simulation, "completed", feasible=outcome.feasible, plan_count=len(plans))

    return store.update(project_id, simulation_id, apply)


def get(project_id: str, simulation_id: str) -> SimulationDetail:
    simulation = current(store.load(project_id, simulation_id))
    request, outcome = store.load_request(simulation_id), store.load_outcome(simulation_id)
    return SimulationDetail(**simulation.model_dump(), request=request, outcome=outcome)


def page_of(project_id: str, limit: int, cursor: str | None) -> tuple[list[Simulation], str | None]:
    items, following = store.page_of(project_id, limit, cursor)
    return [current(item) for item in items], following


def plan_page(project_id: str, simulation_id: str, limit: int, cursor: str | None) -> tuple[list[Plan], str | None]:
    store.load(project_id, simulation_id)  # the plans of a simulation are those of its project
    return store.plan_page(simulation_id, limit, cursor)


def current(simulation: Simulation) -> Simulation:
    """A simulation that has not completed is what its run is."""
    if simulation.status != SimulationStatus.RUNNING or simulation.run_id is None:
        return simulation
    try:
        run = runs.get(simulation.run_id)
    except NotFound:
        return simulation
    status = _ENDED.get(run.status, SimulationStatus.RUNNING)
    return simulation.model_copy(update={"status": status, "error": run.error})
