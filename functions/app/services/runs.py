"""Runs as people see and steer them."""

from foundry_core import runs
from foundry_core.errors import NotFound
from foundry_core.membership import check_access
from foundry_core.permissions import Action, check
from foundry_core.principal import Principal
from foundry_core.runs import Run

# What cancelling or retrying a run asks of the caller, by kind of run; platform runs have their own action.
_WRITE = {
    "simulate": Action.SIMULATE,
    "deploy_model": Action.DEPLOY,
    "delete_deployment": Action.DEPLOY,
    "sleep_deployment": Action.DEPLOY,
    "wake_deployment": Action.DEPLOY,
}


def page_of(
    principal: Principal, project_id: str | None, limit: int, cursor: str | None
) -> tuple[list[Run], str | None]:
    if project_id is None:
        check(principal, Action.PLATFORM_RUNS_READ)
    else:
        check_access(principal, Action.PROJECT_READ, project_id, gone=True)
    return runs.page_of(project_id, limit, cursor)


def get(principal: Principal, run_id: str) -> Run:
    return _allowed(principal, run_id, writes=False)


def cancel(principal: Principal, run_id: str) -> Run:
    """``Conflict`` with code ``run_ended``."""
    return runs.cancel(_allowed(principal, run_id, writes=True).id)


def retry(principal: Principal, run_id: str, from_step: str | None) -> Run:
    """``Conflict`` with code ``run_not_retriable``; ``Invalid`` with code ``unknown_step``."""
    return runs.retry(_allowed(principal, run_id, writes=True).id, from_step)


def _allowed(principal: Principal, run_id: str, *, writes: bool) -> Run:
    run = runs.get(run_id)
    if run.project_id is None:
        check(principal, Action.PLATFORM_RUNS_WRITE if writes else Action.PLATFORM_RUNS_READ)
        return run
    try:
        # An unknown kind asks for what only an owner may do.
        action = _WRITE.get(run.kind, Action.PROJECT_WRITE) if writes else Action.PROJECT_READ
        check_access(principal, action, run.project_id, gone=True)
    except NotFound:
        raise NotFound(f"There is no run {run_id}.", code="run_not_found") from None
    return run
