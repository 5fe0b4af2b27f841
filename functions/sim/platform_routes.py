"""Routes of what holds for the whole platform: blocked configurations and daily recommendations."""

from typing import Annotated

from fastapi import APIRouter, Path
from foundry_core.http import require
from foundry_core.permissions import Action
from foundry_core.principal import Principal

from functions.sim import blocked, recommendations
from functions.sim.platform_schemas import (
    Blocked,
    BlockedCreate,
    BlockedList,
    DailyRecommendationPage,
    RecommendationsStarted,
)
from functions.sim.routes import Cursor, Limit
from functions.sim.schemas import RunStarted

router = APIRouter(prefix="/simulator", tags=["simulations"])

Reader = require(Action.CLUSTERS_READ)
Writer = Annotated[Principal, require(Action.CLUSTERS_WRITE)]
BlockedId = Annotated[str, Path(max_length=64)]


@router.get("/recommendations", dependencies=[Reader])
def list_daily_recommendations(limit: Limit = 20, cursor: Cursor = None) -> DailyRecommendationPage:
    """For each registered model the clusters that serve it, cheapest first; computed once a day."""
    items, following = recommendations.page_of(limit, cursor)
    return DailyRecommendationPage(items=items, next_cursor=following)


@router.post("/recommendations", status_code=202)
def refresh_recommendations(principal: Writer) -> RecommendationsStarted:
    """Compute them now instead of waiting for the daily run."""
    return RecommendationsStarted(run=RunStarted.of(recommendations.start(principal.user_id)))


@router.get("/blocked", dependencies=[Reader])
def list_blocked() -> BlockedList:
    """Configurations that failed and are not proposed any more, with the reason; oldest first."""
    return BlockedList(items=blocked.every())


@router.post("/blocked", status_code=201)
def create_blocked(asked: BlockedCreate, principal: Writer) -> Blocked:
    """Keep a configuration that failed out of every later simulation and recommendation."""
    return blocked.add(asked, principal.user_id)


@router.delete("/blocked/{blocked_id}", status_code=204, dependencies=[require(Action.CLUSTERS_WRITE)])
def delete_blocked(blocked_id: BlockedId) -> None:
    """Allow the configuration again."""
    blocked.remove(blocked_id)
