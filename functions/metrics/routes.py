"""Routes of metrics."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from foundry_core.http import require
from foundry_core.permissions import Action

from functions.metrics import service
from functions.metrics.schemas import Accuracy, GroupBy, UsagePage

router = APIRouter(
    prefix="/projects/{project_id}/metrics", tags=["metrics"], dependencies=[require(Action.METRICS_READ)]
)
Id = Annotated[str, Path(min_length=1, max_length=128)]
TimeMs = Annotated[int | None, Query(ge=0, lt=4_102_444_800_000)]


@router.get("/usage")
def get_usage(
    project_id: Id,
    from_ms: TimeMs = None,
    to_ms: TimeMs = None,
    group_by: GroupBy = "endpoint",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> UsagePage:
    """Requests, tokens, cost and latency of a project; the last day by default."""
    return service.usage(project_id, from_ms, to_ms, group_by, limit, cursor)


@router.get("/deployments/{deployment_id}/accuracy")
def get_accuracy(project_id: Id, deployment_id: Id, from_ms: TimeMs = None, to_ms: TimeMs = None) -> Accuracy:
    """What was predicted for a deployment against what was measured, by source; the last day by default."""
    return service.accuracy(project_id, deployment_id, from_ms, to_ms)
