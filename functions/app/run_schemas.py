"""Runs as the app domain shows them. Times in UTC milliseconds."""

from typing import Annotated, Any

from foundry_core.runs import Run, RunError, RunStatus, StepStatus
from pydantic import BaseModel, StringConstraints

from functions.app.schemas import Request


class StepView(BaseModel):
    name: str
    title: str
    status: StepStatus
    started_at_ms: int | None
    ended_at_ms: int | None
    progress: float | None
    detail: str | None
    error: RunError | None


class RunView(BaseModel):
    """A run as clients see it: without what its steps hand on to one another."""

    id: str
    kind: str
    subject_id: str
    project_id: str | None
    status: RunStatus
    attempt: int
    version: int
    steps: list[StepView]
    result: dict[str, Any] | None
    error: RunError | None
    cancel_requested: bool
    created_by: str
    created_at_ms: int
    started_at_ms: int | None
    ended_at_ms: int | None
    eta_ms: int | None

    @classmethod
    def of(cls, run: Run) -> "RunView":
        return cls.model_validate(run.model_dump())


class RunRetry(Request):
    from_step: Annotated[str, StringConstraints(max_length=64)] | None = None
