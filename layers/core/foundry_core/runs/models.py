"""What a run is. Times are UTC milliseconds; ``version`` grows with every change and is the ETag."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field


class RunStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in {RunStatus.PENDING, RunStatus.RUNNING}


class StepStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNDONE = "undone"  # succeeded once, then taken back by a compensation


class RunError(BaseModel):
    code: str
    detail: str
    next_action: str | None = None


class Step(BaseModel):
    name: str
    title: str
    status: StepStatus = StepStatus.PENDING
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    progress: float | None = None
    detail: str | None = None
    error: RunError | None = None
    # What the step returned: a later attempt takes it from here instead of running the step again.
    output: dict[str, Any] | None = None


class Run(BaseModel):
    id: str
    kind: str
    subject_id: str
    project_id: str | None = None
    status: RunStatus = RunStatus.PENDING
    attempt: int = 1
    version: int = 0
    steps: list[Step]
    input: dict[str, Any] = Field(default_factory=dict)
    result: dict[str, Any] | None = None
    error: RunError | None = None
    cancel_requested: bool = False
    created_by: str
    created_at_ms: int
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    eta_ms: int | None = None

    def step(self, name: str) -> Step:
        """The step of that name; ``LookupError`` for one that the flow does not have."""
        found = next((step for step in self.steps if step.name == name), None)
        if found is None:
            raise LookupError(f"run {self.id} of kind {self.kind} has no step {name!r}")
        return found

    @property
    def execution_name(self) -> str:
        return f"{self.id}-{self.attempt}"
