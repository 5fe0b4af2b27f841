"""Routes of runs. Authority comes from the project in the run's record."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from foundry_core.http import CurrentPrincipal

from functions.app.routes.common import UNCHANGED, Cursor, Id, Limit, tagged
from functions.app.run_schemas import RunRetry, RunView
from functions.app.schemas import Page
from functions.app.services import runs as service

router = APIRouter(prefix="/runs", tags=["runs"])


@router.get("")
def list_runs(
    principal: CurrentPrincipal,
    project_id: Annotated[str | None, Query(min_length=1, max_length=128)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[RunView]:
    """Runs of a project, or those of the platform itself; newest first."""
    items, following = service.page_of(principal, project_id, limit, cursor)
    return Page(items=[RunView.of(run) for run in items], next_cursor=following)


@router.get("/{run_id}", responses=UNCHANGED)
def get_run(run_id: Id, request: Request, response: Response, principal: CurrentPrincipal) -> RunView:
    """A run with its steps; poll with If-None-Match."""
    run = service.get(principal, run_id)
    return tagged(request, response, RunView.of(run), f'"{run.id}.{run.version}"')


@router.post("/{run_id}/cancel", status_code=202)
def cancel_run(run_id: Id, response: Response, principal: CurrentPrincipal) -> RunView:
    """Ask a run to stop; what it had made is taken back."""
    run = service.cancel(principal, run_id)
    response.headers["location"] = f"/runs/{run.id}"
    return RunView.of(run)


@router.post("/{run_id}/retry", status_code=202)
def retry_run(run_id: Id, response: Response, principal: CurrentPrincipal, body: RunRetry | None = None) -> RunView:
    """Start the next attempt of a failed or cancelled run, from the step that failed or an earlier one."""
    run = service.retry(principal, run_id, body.from_step if body else None)
    response.headers["location"] = f"/runs/{run.id}"
    return RunView.of(run)
