"""The simulation table: the only file that knows it.

A simulation is a summary item, its request and its outcome apart (lists do not need them), and one item per plan.
"""

from collections.abc import Callable, Sequence
from typing import Any

from foundry_core.errors import Conflict, NotFound
from foundry_core.events import Event, OutboxFields, outbox_keys
from foundry_core.table import Item, conflicts, every, meta, page, write
from foundry_sim.search.plans import Plan
from pynamodb.attributes import JSONAttribute, UnicodeAttribute

from functions.sim.platform_schemas import Blocked, DailyRecommendation
from functions.sim.schemas import Calibration, Outcome, Simulation, SimulationCreate

_TRIES = 8
_BLOCKED = "BLOCKED"
_DAILY = "RECOMMENDATIONS"


class SimTable(Item):
    Meta = meta("sim")


class SimulationItem(SimTable, discriminator="simulation"):
    data = JSONAttribute()


class RequestItem(SimTable, discriminator="request"):
    data = JSONAttribute()


class OutcomeItem(SimTable, discriminator="outcome"):
    data = JSONAttribute()


class PlanItem(SimTable, discriminator="plan"):
    data = JSONAttribute()


class CalibrationItem(SimTable, discriminator="calibration"):
    data = JSONAttribute()


class BlockedItem(SimTable, discriminator="blocked"):
    data = JSONAttribute()


class RecommendationItem(SimTable, discriminator="recommendation"):
    data = JSONAttribute()


class DayItem(SimTable, discriminator="day"):
    run_id = UnicodeAttribute()


class SimOutbox(OutboxFields, SimTable, discriminator="outbox"):
    pass


def insert(simulation: Simulation, request: SimulationCreate, event: Event) -> Simulation:
    item = SimulationItem(_pk(simulation.project_id), f"SIMULATION#{simulation.id}", data=_data(simulation))
    kept = RequestItem(_own(simulation.id), "REQUEST", data=request.model_dump(mode="json"))
    with conflicts(f"There is a simulation {simulation.id} already."):
        write(create=[item, kept, SimOutbox(**outbox_keys(event))])
    return _simulation(item)


def load(project_id: str, simulation_id: str) -> Simulation:
    return _simulation(_item(project_id, simulation_id))


def load_request(simulation_id: str) -> SimulationCreate:
    try:
        return SimulationCreate(**RequestItem.get(_own(simulation_id), "REQUEST", consistent_read=True).data)
    except RequestItem.DoesNotExist as error:
        raise _missing(simulation_id) from error


def load_outcome(simulation_id: str) -> Outcome | None:
    """None until the search has ended."""
    try:
        return Outcome(**OutcomeItem.get(_own(simulation_id), "OUTCOME", consistent_read=True).data)
    except OutcomeItem.DoesNotExist:
        return None


def page_of(project_id: str, limit: int, cursor: str | None) -> tuple[list[Simulation], str | None]:
    items, following = page(
        SimulationItem, _pk(project_id), prefix="SIMULATION#", limit=limit, cursor=cursor, newest_first=True
    )
    return [_simulation(item) for item in items], following


def plan_page(simulation_id: str, limit: int, cursor: str | None) -> tuple[list[Plan], str | None]:
    """Plans from best to worst."""
    items, following = page(PlanItem, _own(simulation_id), prefix="PLAN#", limit=limit, cursor=cursor)
    return [Plan(**item.data) for item in items], following


def update(project_id: str, simulation_id: str, change: Callable[[Simulation], Event | None]) -> Simulation:
    """Read, ``change`` in place, write with the returned event; again when another writer was faster."""
    for _ in range(_TRIES):
        item = _item(project_id, simulation_id)
        simulation = _simulation(item)
        event = change(simulation)
        item.data = _data(simulation)
        try:
            with conflicts("changed meanwhile"):
                write(save=[item], create=[SimOutbox(**outbox_keys(event))] if event else [])
        except Conflict:
            continue
        return _simulation(item)
    raise Conflict(f"Simulation {simulation_id} is being changed by too many writers.", next_action="Try again.")


def put_result(simulation_id: str, outcome: Outcome, plans: Sequence[Plan]) -> None:
    """Write the outcome and the plans; again is the same, since a search is a function of its request."""
    pk = _own(simulation_id)
    OutcomeItem(pk, "OUTCOME", data=outcome.model_dump(mode="json")).save(add_version_condition=False)
    with PlanItem.batch_write() as batch:
        for rank, plan in enumerate(plans):
            batch.save(PlanItem(pk, f"PLAN#{rank:04d}", data=plan.model_dump(mode="json")))


def insert_calibration(project_id: str, calibration: Calibration) -> Calibration:
    """Raises ``Conflict`` when this version is there already."""
    item = CalibrationItem(_pk(project_id), _version_key(calibration.version), data=calibration.model_dump(mode="json"))
    with conflicts(f"There is a calibration version {calibration.version} already."):
        write(create=[item])
    return calibration


def load_calibration(project_id: str, version: int) -> Calibration:
    try:
        item = CalibrationItem.get(_pk(project_id), _version_key(version), consistent_read=True)
    except CalibrationItem.DoesNotExist as error:
        raise NotFound(f"There is no calibration version {version}.", code="calibration_not_found") from error
    return Calibration(**item.data)


def newest_calibration(project_id: str) -> Calibration | None:
    items, _ = calibration_page(project_id, 1, None)
    return items[0] if items else None


def calibration_page(project_id: str, limit: int, cursor: str | None) -> tuple[list[Calibration], str | None]:
    """Newest first."""
    items, following = page(
        CalibrationItem, _pk(project_id), prefix="CALIBRATION#", limit=limit, cursor=cursor, newest_first=True
    )
    return [Calibration(**item.data) for item in items], following


def insert_blocked(blocked: Blocked) -> Blocked:
    BlockedItem(_BLOCKED, f"BLOCKED#{blocked.id}", data=blocked.model_dump(mode="json")).save()
    return blocked


def every_blocked() -> list[Blocked]:
    """Oldest first; ``functions.sim.blocked`` keeps the number small."""
    return [Blocked(**item.data) for item in every(BlockedItem, _BLOCKED, prefix="BLOCKED#")]


def delete_blocked(blocked_id: str) -> None:
    try:
        BlockedItem.get(_BLOCKED, f"BLOCKED#{blocked_id}", consistent_read=True).delete(add_version_condition=False)
    except BlockedItem.DoesNotExist as error:
        raise NotFound(f"There is no blocked configuration {blocked_id}.", code="blocked_not_found",
                       next_action="foundry blocked list") from error  # fmt: skip


def put_recommendation(found: DailyRecommendation, expires_at_s: int) -> None:
    """One per model, in the place of an older one; gone by itself when no newer one follows."""
    data = found.model_dump(mode="json")
    item = RecommendationItem(_DAILY, f"MODEL#{found.model_id}", data=data, expires_at=expires_at_s)
    item.save(add_version_condition=False)


def recommendation_page(limit: int, cursor: str | None) -> tuple[list[DailyRecommendation], str | None]:
    items, following = page(RecommendationItem, _DAILY, prefix="MODEL#", limit=limit, cursor=cursor)
    return [DailyRecommendation(**item.data) for item in items], following


def run_of_day(day: str) -> str | None:
    """The run that was started for this day, if one was."""
    try:
        return DayItem.get(_DAILY, f"DAY#{day}", consistent_read=True).run_id
    except DayItem.DoesNotExist:
        return None


def keep_run_of_day(day: str, run_id: str, expires_at_s: int) -> None:
    DayItem(_DAILY, f"DAY#{day}", run_id=run_id, expires_at=expires_at_s).save(add_version_condition=False)


def _version_key(version: int) -> str:
    return f"CALIBRATION#{version:08d}"


def _pk(project_id: str) -> str:
    return f"PROJECT#{project_id}"


def _own(simulation_id: str) -> str:
    return f"SIMULATION#{simulation_id}"


def _item(project_id: str, simulation_id: str) -> SimulationItem:
    try:
        return SimulationItem.get(_pk(project_id), f"SIMULATION#{simulation_id}", consistent_read=True)
    except SimulationItem.DoesNotExist as error:
        raise _missing(simulation_id) from error


def _missing(simulation_id: str) -> NotFound:
    return NotFound(f"There is no simulation {simulation_id} in this project.", code="simulation_not_found")


def _data(simulation: Simulation) -> dict[str, Any]:
    return simulation.model_dump(mode="json", exclude={"version"})


def _simulation(item: SimulationItem) -> Simulation:
    return Simulation(**item.data, version=int(item.version or 0))
