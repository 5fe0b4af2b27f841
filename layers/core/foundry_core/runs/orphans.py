"""Closes runs whose execution ended without saying so (aborted by hand, over a size limit): no run hangs for ever.

EventBridge reports every execution that failed, timed out or was aborted. One whose last step was ``fail_run`` has
closed its run already; only the others are closed here.
"""

from typing import Any

from foundry_core.errors import Conflict, NotFound
from foundry_core.events import Event
from foundry_core.logs import logger
from foundry_core.runs import store
from foundry_core.runs.models import Run, RunError, RunStatus
from foundry_core.runs.service import end

_ERROR = RunError(
    code="execution_ended", detail="The execution behind this run ended unexpectedly.", next_action="Retry the run."
)


def close(event: dict[str, Any], context: Any) -> None:
    """Handler of ``Step Functions Execution Status Change``; the execution's name is ``<run id>-<attempt>``."""
    run_id, _, attempt = str(event["detail"]["name"]).rpartition("-")
    try:
        store.update(run_id, lambda run: _fail(run, attempt))
    except (NotFound, Conflict):
        logger.info("no open run", extra={"execution": event["detail"]["name"]})


def _fail(run: Run, attempt: str) -> Event:
    if str(run.attempt) != attempt or run.status.ended:
        raise Conflict(f"Run {run.id} goes on without this execution.")
    return end(run, RunStatus.FAILED, error=_ERROR)
