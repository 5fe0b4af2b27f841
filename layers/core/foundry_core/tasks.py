"""Step Functions tasks of a domain: `task` Lambda → the function of that name, with the run kept up to date.

    tasks = Tasks("cluster")

    @tasks.task("connect")
    def connect(context: TaskContext) -> Output: ...

    task = tasks.handler          # in handler.py

The payload is ``{"task", "step", "run_id", "attempt", "input"}``; ``input`` is the whole state of the execution. The
answer is the function's output. A step that already succeeded in an earlier attempt is not run again: its stored output
is the answer. A step that must be asked again returns ``waiting(...)``. Errors keep their class names for ASL.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from foundry_core.clock import now_ms
from foundry_core.errors import FoundryError
from foundry_core.events import Event
from foundry_core.logs import logger
from foundry_core.runs import store
from foundry_core.runs.models import Run, RunError, RunStatus, Step, StepStatus
from foundry_core.runs.service import end
from foundry_core.transient import transient_errors

Output = dict[str, Any]
_INTERNAL = RunError(
    code="internal_error",
    detail="Something failed on our side; the fault has been logged.",
    next_action="Retry the run.",
)


class RunCancelled(FoundryError):
    status, title, default_code = 409, "Cancelled", "run_cancelled"


class StaleAttempt(FoundryError):
    """A later attempt has taken over; this execution must stop without touching anything."""

    status, title, default_code = 409, "Superseded", "stale_attempt"


@dataclass(frozen=True)
class TaskContext:
    run: Run
    step: str
    input: dict[str, Any]

    def progress(self, fraction: float, detail: str | None = None) -> None:
        """Show how far the step is, ``0…1``."""

        def note(step: Step) -> None:
            step.progress, step.detail = fraction, detail or step.detail

        _change(self, note)


Function = Callable[[TaskContext], Output]


@dataclass(frozen=True)
class _Task:
    function: Function
    undoes: tuple[str, ...] = ()


def waiting(detail: str, progress: float | None = None, **more: Any) -> Output:
    """The output of a step that is not finished: the flow waits and asks again."""
    return {"status": "waiting", "detail": detail, "progress": progress, **more}


def _is_waiting(output: Output) -> bool:
    return output.get("status") == "waiting"


class Tasks:
    """The tasks of one domain by name. ``finish_run`` and ``fail_run`` come with every domain."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self._tasks = {
            "finish_run": _Task(_finish_run),
            "fail_run": _Task(_fail_run),
        }

    def task(self, name: str, undoes: tuple[str, ...] = ()) -> Callable[[Function], Function]:
        """Register a function. Where the run has a step of that name it is shown, remembered and stopped by a cancel
        request; elsewhere it is bookkeeping or a compensation, which takes back the steps that it ``undoes``."""

        def register(function: Function) -> Function:
            if name in self._tasks:
                raise ValueError(f"task {name!r} of {self.domain} is registered already")
            self._tasks[name] = _Task(function, undoes)
            return function

        return register

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._tasks)

    def handler(self, payload: dict[str, Any], context: Any) -> Output:
        """The Lambda entry point of the domain's tasks."""
        task = self._tasks.get(payload["task"])
        if task is None:
            raise LookupError(f"domain {self.domain} has no task {payload['task']!r}")
        with transient_errors():
            return _perform(task, payload)


def _perform(task: _Task, payload: dict[str, Any]) -> Output:
    run = store.load(payload["run_id"])
    _refuse_stale(run, payload["attempt"])
    name = payload.get("step") or payload["task"]
    done = next((step for step in run.steps if step.name == name), None)
    if done is None:
        return _perform_unseen(task, TaskContext(run, name, payload["input"]))
    if done.status == StepStatus.SUCCEEDED and done.output is not None:
        return done.output
    if run.cancel_requested:
        raise RunCancelled(f"Run {run.id} was cancelled.")
    return _perform_step(task, TaskContext(_begin(run, name), name, payload["input"]))


def _refuse_stale(run: Run, attempt: int) -> None:
    if run.attempt != attempt or run.status.ended:
        raise StaleAttempt(
            f"Attempt {attempt} of run {run.id} is over; the run is at attempt {run.attempt}, {run.status}."
        )


def _perform_unseen(task: _Task, context: TaskContext) -> Output:
    if task.undoes:
        # First: a step that is half undone has to run again, also when the undoing fails.
        store.update(context.run.id, lambda run: _take_back(run, context.run.attempt, task.undoes))
    return task.function(context)


def _take_back(run: Run, attempt: int, names: tuple[str, ...]) -> None:
    _refuse_stale(run, attempt)
    for step in run.steps:
        if step.name in names and step.status == StepStatus.SUCCEEDED:
            step.status, step.output = StepStatus.UNDONE, None


def _perform_step(task: _Task, context: TaskContext) -> Output:
    try:
        with transient_errors():
            output = task.function(context)
    except Exception as error:
        if not isinstance(error, FoundryError):
            logger.exception("task failed", extra={"run_id": context.run.id, "step": context.step})
        reason = describe(error)
        _change(context, lambda step: _fail(step, reason))
        raise
    _change(context, lambda step: _advance(step, output))
    return output


def _begin(run: Run, name: str) -> Run:
    step = run.step(name)
    if step.status == StepStatus.RUNNING:
        return run

    def begin(current: Run) -> None:
        _refuse_stale(current, run.attempt)
        step = current.step(name)
        step.status, step.started_at_ms = StepStatus.RUNNING, now_ms()
        step.error, step.ended_at_ms = None, None

    return store.update(run.id, begin)


def _change(context: TaskContext, change: Callable[[Step], None]) -> None:
    def apply(run: Run) -> None:
        _refuse_stale(run, context.run.attempt)
        change(run.step(context.step))

    store.update(context.run.id, apply)


def _advance(step: Step, output: Output) -> None:
    step.detail = output.get("detail") or step.detail
    step.progress = output.get("progress", step.progress)
    if _is_waiting(output):
        return
    step.status, step.ended_at_ms, step.progress, step.output = StepStatus.SUCCEEDED, now_ms(), 1.0, output


def _fail(step: Step, reason: RunError) -> None:
    step.status, step.ended_at_ms, step.error = StepStatus.FAILED, now_ms(), reason


def describe(error: Exception) -> RunError:
    """What a person may read of ``error``: an unexpected one is in the log, not in the record."""
    if not isinstance(error, FoundryError):
        return _INTERNAL
    return RunError(code=error.code, detail=error.detail, next_action=error.next_action)


def _finish_run(context: TaskContext) -> Output:
    result = (context.input.get("result") or {}).get("output")
    store.update(context.run.id, lambda run: end(run, RunStatus.SUCCEEDED, result=result))
    return {}


def _fail_run(context: TaskContext) -> Output:
    """Close the run with the error of its failed step; a cancelled run is closed as cancelled."""
    caught = context.input.get("error", {})
    left_behind = "undo_error" in context.input

    def close(run: Run) -> Event:
        if run.cancel_requested and caught.get("Error") == RunCancelled.__name__ and not left_behind:
            return end(run, RunStatus.CANCELLED)
        return end(run, RunStatus.FAILED, error=_close_steps(run, caught, left_behind))

    store.update(context.run.id, close)
    return {}


def _close_steps(run: Run, caught: dict[str, str], left_behind: bool) -> RunError:
    """The error of the run; steps that are still running fail with it."""
    failed = next((step.error for step in run.steps if step.error and step.status == StepStatus.FAILED), None)
    error = failed or _from_flow(caught)
    for step in run.steps:
        if step.status == StepStatus.RUNNING:
            _fail(step, error)
    if left_behind:
        rest = "Cleaning up failed as well: something was left behind in the cluster."
        error = error.model_copy(update={"detail": f"{error.detail} {rest}"})
    return error


def _from_flow(caught: dict[str, str]) -> RunError:
    """An error that the flow itself raised, such as a poll that gave up by count (its ``Cause`` is a sentence)."""
    name, cause = caught.get("Error", ""), caught.get("Cause", "")
    if not name or cause.startswith("{"):
        return _INTERNAL
    code = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.replace("States.", "")).lower()
    return RunError(code=code, detail=cause or name, next_action="Retry the run.")
