"""Each day: which cluster serves each registered model cheapest. One run a day; what it can hold is bounded.

The flow ``recommend`` hands over the clusters and, page by page, the models; results are one item per model.
"""

from typing import Any

from foundry_core import runs
from foundry_core.clock import iso, now_ms
from foundry_core.runs import Run
from foundry_sim.facts import devices
from foundry_sim.facts.architecture import ArchitectureError, from_config
from foundry_sim.release import release
from foundry_sim.search.plans import BlockedConfiguration, DeviceGroup
from foundry_sim.search.queries import recommend

from functions.sim import blocked, store
from functions.sim.platform_schemas import Choice, DailyRecommendation
from functions.sim.schemas import PLATFORM_ENGINES

_KEPT_S = 3 * 24 * 3600  # of a model that is gone, or of a platform whose runs fail
_SCHEDULE = "schedule"
_PLANS = 3  # with their plans, so that a page of recommendations stays below what a function may answer
_CLASS = {"generate": "chat"}

page_of = store.recommendation_page


def start_for_today() -> Run | None:
    """None when today's run was started before: the schedule delivers at least once."""
    day = _today()
    if store.run_of_day(day):
        return None
    run = start(_SCHEDULE)
    store.keep_run_of_day(day, run.id, _expiry())
    return run


def start(user_id: str) -> Run:
    return runs.create("recommend", subject_id=_today(), created_by=user_id)


def _today() -> str:
    return iso(now_ms())[:10]


def _expiry() -> int:
    return now_ms() // 1000 + _KEPT_S


def compute(model: dict[str, Any], clusters: list[dict[str, Any]], day: str) -> None:
    """Find the choices of one model and keep them. A second time they are written again."""
    config, kind = {**model["config"], "_name_or_path": model["name"]}, _class_of(model)
    rules = blocked.rules(model["name"], blocked.every())
    choices = sorted((_choice(config, kind, cluster, rules) for cluster in clusters), key=_price)
    found = DailyRecommendation(
        model_id=model["id"], model_name=model["name"], workload_class=kind,
        choices=[*choices[:_PLANS], *(choice.model_copy(update={"plan": None}) for choice in choices[_PLANS:])],
        day=day, computed_at_ms=now_ms(), release=release(), prices_as_of=devices.prices_as_of()[0],
    )  # fmt: skip
    store.put_recommendation(found, _expiry())


def _class_of(model: dict[str, Any]) -> str:
    """Lengths and limits by what the model does; vectors and scores are alike."""
    try:
        return _CLASS.get(from_config(model["config"], model["name"]).task, "embedding")
    except ArchitectureError:
        return "chat"


def _choice(config: dict[str, Any], kind: str, cluster: dict[str, Any], rules: list[BlockedConfiguration]) -> Choice:
    groups = [DeviceGroup(**group) for group in cluster["device_groups"]]
    [found] = recommend([config], groups, kind, engines=PLATFORM_ENGINES, blocked=rules)
    return Choice(
        cluster_id=cluster["id"], cluster_name=cluster["name"], plan=found.best, explanation=found.explanation,
        cost_nanos_per_hour=found.best.cost_nanos_per_hour if found.best else None,
    )  # fmt: skip


def _price(choice: Choice) -> tuple[bool, int]:
    return choice.cost_nanos_per_hour is None, choice.cost_nanos_per_hour or 0
