"""What holds for the whole platform: configurations that failed, and each day's recommendations."""

from typing import Annotated, Self

from foundry_sim.search.plans import BlockedConfiguration, Plan
from pydantic import BaseModel, Field, StringConstraints, model_validator

from functions.sim.schemas import Name, RunStarted

_FIELDS = ("model", "engine", "device", "weights", "tp", "pp", "ep")


class BlockedCreate(BlockedConfiguration):
    """A configuration that failed; empty fields match everything. ``model``: the name of the one it failed with."""

    model: Name | None = None
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)] = Field(description="Why it is blocked.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(getattr(self, name) for name in _FIELDS):
            raise ValueError(f"give at least one of {', '.join(_FIELDS)}: empty fields match everything")
        return self


class Blocked(BlockedCreate):
    """Kept for all projects: no simulation and no recommendation proposes it until it is taken back."""

    id: str
    created_by: str
    created_at_ms: int


class BlockedList(BaseModel):
    items: list[Blocked]


class Choice(BaseModel):
    """What a cluster can do for a model; without a price it cannot, and ``explanation`` says why."""

    cluster_id: str
    cluster_name: str
    cost_nanos_per_hour: int | None
    explanation: str
    plan: Plan | None = Field(None, description="Of the three cheapest clusters.")


class DailyRecommendation(BaseModel):
    """The clusters for a registered model, cheapest first, as of ``day`` (UTC) and the simulator's ``release``."""

    model_id: str
    model_name: str
    workload_class: str
    choices: list[Choice]
    day: str
    computed_at_ms: int
    release: str
    prices_as_of: str


class DailyRecommendationPage(BaseModel):
    items: list[DailyRecommendation]
    next_cursor: str | None = None


class RecommendationsStarted(BaseModel):
    run: RunStarted
