"""At boot: every run that has not ended and whose execution is gone goes on as attempt n + 1.

The run is the truth; what a restart takes away is only its engine. Steps that had succeeded are not run again.
"""

import logging
from typing import Any

import boto3
from botocore.exceptions import ClientError

log = logging.getLogger(__name__)


def reconcile() -> list[str]:
    """Restart what needs it; returns the execution names. Call it where the functions' variables are visible."""
    # Imported here: the table's name is read from the environment when the store is imported.
    from foundry_core import runs
    from foundry_core.errors import FoundryError

    stepfunctions, started = boto3.client("stepfunctions"), []
    for run in list(runs.unfinished()):
        try:
            if _is_running(stepfunctions, run):
                continue
            again = runs.restart(run.id)
        except (LookupError, FoundryError) as error:
            log.error("run %s of kind %s was not restarted: %s", run.id, run.kind, error)
            continue
        log.info("run %s goes on as attempt %d", again.id, again.attempt)
        started.append(again.execution_name)
    return started


def _is_running(stepfunctions: Any, run: Any) -> bool:
    from foundry_core.settings import settings

    machine = settings().state_machine(run.kind)
    arn = machine.replace(":stateMachine:", ":execution:") + f":{run.execution_name}"
    try:
        return bool(stepfunctions.describe_execution(executionArn=arn)["status"] == "RUNNING")
    except ClientError as error:
        if error.response["Error"]["Code"] == "ExecutionDoesNotExist":
            return False
        raise
