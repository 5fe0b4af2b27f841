"""Runs: one record per execution of long work. The run is the truth; the state-machine execution is its engine."""

from foundry_core.runs.models import Run, RunError, RunStatus, Step, StepStatus
from foundry_core.runs.service import cancel, create, every_of, get, page_of, restart, retry, unfinished

__all__ = [
    "Run", "RunError", "RunStatus", "Step", "StepStatus",
    "cancel", "create", "every_of", "get", "page_of", "restart", "retry", "unfinished",
]  # fmt: skip
