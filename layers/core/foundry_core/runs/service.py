"""Life of a run: create, start, cancel, retry, restart. Status changes go through ``switch_status`` alone."""

import json

from foundry_core.aws import client
from foundry_core.clock import now_ms
from foundry_core.errors import Conflict, Invalid, Unavailable
from foundry_core.events import Event, new_event
from foundry_core.ids import new_id
from foundry_core.logs import logger
from foundry_core.runs import store
from foundry_core.runs.flows import steps_of
from foundry_core.runs.models import Run, RunError, RunStatus, Step, StepStatus
from foundry_core.settings import settings

get = store.load
page_of = store.of_owner
every_of = store.every_of_owner
unfinished = store.unfinished

_NEXT: dict[RunStatus, set[RunStatus]] = {
    RunStatus.PENDING: {RunStatus.RUNNING, RunStatus.FAILED, RunStatus.CANCELLED},
    RunStatus.RUNNING: {RunStatus.RUNNING, RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED},
    RunStatus.SUCCEEDED: set(),
    RunStatus.FAILED: {RunStatus.RUNNING},
    RunStatus.CANCELLED: {RunStatus.RUNNING},
}
_NOT_STARTED = RunError(
    code="run_not_started", detail="The work could not be started; the fault has been logged.",
    next_action="Retry the run.",
)  # fmt: skip


def switch_status(run: Run, status: RunStatus) -> Event:
    """The one place where a run's status changes; returns the audit event. ``Conflict`` for an impossible change."""
    if status not in _NEXT[run.status]:
        raise Conflict(f"A run that is {run.status} cannot become {status}.", code="run_ended")
    run.status = status
    run.ended_at_ms = now_ms() if status.ended else None
    data = {"run_id": run.id, "kind": run.kind, "project_id": run.project_id, "status": status, "attempt": run.attempt,
            "subject_id": run.subject_id}  # fmt: skip
    return new_event(f"foundry.run.{status}.v1", source="runs", subject=run.id, data=data)


def create(
    kind: str,
    *,
    subject_id: str,
    created_by: str,
    project_id: str | None = None,
    input: dict[str, object] | None = None,
    run_id: str | None = None,
) -> Run:
    """Write the run and start its state machine. A run that could not be started is there, failed and retriable. With
    ``run_id``, a new id that the caller has kept, creating it again finds it, and starts it if that was not done."""
    run = Run(
        id=run_id or new_id("run"), kind=kind, subject_id=subject_id, project_id=project_id, steps=steps_of(kind),
        input=dict(input or {}), created_by=created_by, created_at_ms=now_ms(),
    )  # fmt: skip
    event = new_event("foundry.run.created.v1", source="runs", subject=run.id, data={"run_id": run.id, "kind": kind})
    try:
        store.insert(run, event)
    except Conflict:
        found = store.load(run.id)
        return _start(run.id) if found.status == RunStatus.PENDING else found
    return _start(run.id)


def _start(run_id: str) -> Run:
    def begin(run: Run) -> Event:
        run.started_at_ms = run.started_at_ms or now_ms()
        return switch_status(run, RunStatus.RUNNING)

    return _launch(store.update(run_id, begin))


def _launch(run: Run) -> Run:
    """A run without an execution would stay open for ever and keep others away from its subject."""
    try:
        start_execution(run)
    except Exception:  # whatever it was, there may be no execution that could close the run
        logger.exception("start execution", extra={"run_id": run.id, "attempt": run.attempt})
        return store.update(run.id, lambda current: _not_started(current, run.attempt))
    return run


def _not_started(run: Run, attempt: int) -> Event | None:
    if run.attempt != attempt or run.status.ended:
        return None
    return end(run, RunStatus.FAILED, error=_NOT_STARTED)


def start_execution(run: Run) -> None:
    """Start the execution of the run's attempt; the same attempt never runs twice (its name is the identity)."""
    machine = settings().state_machine(run.kind)
    payload = {
        "run_id": run.id,
        "attempt": run.attempt,
        "project_id": run.project_id,
        "subject_id": run.subject_id,
    }
    stepfunctions = client("stepfunctions")
    try:
        stepfunctions.start_execution(
            stateMachineArn=machine,
            name=run.execution_name,
            input=json.dumps({**payload, "input": run.input}),
        )
    except stepfunctions.exceptions.ExecutionAlreadyExists:
        return


def cancel(run_id: str) -> Run:
    """Ask the flow to stop: its next step raises ``RunCancelled``, compensates and marks the run cancelled. A flow that
    was never started (a crash in between) is started for that; ``Unavailable`` when it cannot be."""

    def request(run: Run) -> None:
        if run.status.ended:
            raise Conflict(f"Run {run.id} has ended: it is {run.status}.", code="run_ended")
        run.cancel_requested = True

    run = store.update(run_id, request)
    try:
        start_execution(run)
    except Exception as error:
        raise Unavailable("The run could not be told to stop.", next_action="Cancel it again.") from error
    return run


def retry(run_id: str, from_step: str | None = None) -> Run:
    """Start the next attempt of a failed or cancelled run, from the first unfinished step or an earlier one."""

    def reopen(run: Run) -> Event:
        if run.status not in {RunStatus.FAILED, RunStatus.CANCELLED}:
            raise Conflict(f"Run {run.id} is {run.status}; only a failed or cancelled run can be retried.",
                           code="run_not_retriable")  # fmt: skip
        _reset(run, from_step)
        run.cancel_requested = False
        return _next_attempt(run)

    return _launch(store.update(run_id, reopen))


def restart(run_id: str) -> Run:
    """Start attempt n + 1 of a run whose execution was lost; the lost one can no longer write (``StaleAttempt``)."""
    return _launch(store.update(run_id, _next_attempt))


def _next_attempt(run: Run) -> Event:
    run.attempt += 1
    run.error, run.result = None, None
    return switch_status(run, RunStatus.RUNNING)


def _reset(run: Run, from_step: str | None) -> None:
    names = [step.name for step in run.steps]
    if from_step and from_step not in names:
        raise Invalid(f"This run has no step {from_step!r}; its steps are {', '.join(names)}.", code="unknown_step")
    first = names.index(from_step) if from_step else len(names)
    for place, step in enumerate(run.steps):
        if place >= first or step.status != StepStatus.SUCCEEDED:
            run.steps[place] = Step(name=step.name, title=step.title)


def end(
    run: Run, status: RunStatus, *, result: dict[str, object] | None = None, error: RunError | None = None
) -> Event:
    run.result, run.error = result, error
    return switch_status(run, status)
