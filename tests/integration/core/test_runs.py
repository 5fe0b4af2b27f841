"""A run is the truth of long work: steps, attempts, cancel, retry, and no writes by a superseded attempt."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
from botocore.exceptions import EndpointConnectionError
from foundry_core import runs
from foundry_core.errors import Conflict, FoundryError, NotFound, TransientError, Unavailable
from foundry_core.runs import Run, RunStatus, StepStatus
from foundry_core.tasks import RunCancelled, StaleAttempt, TaskContext, Tasks, waiting

pytestmark = pytest.mark.usefixtures("aws_tables")


class OutOfRoom(FoundryError):
    default_code = "out_of_room"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr("foundry_core.runs.service.start_execution", lambda run: names.append(run.execution_name))
    return names


@pytest.fixture
def run(started: list[str]) -> Run:
    return runs.create("simulate", subject_id="sim_1", project_id="p1", created_by="u1", input={"a": 1})


@pytest.fixture
def tasks() -> Tasks:
    tasks = Tasks("sim")
    calls: list[str] = []

    @tasks.task("resolve_inputs")
    def resolve_inputs(context: TaskContext) -> dict[str, object]:
        calls.append("resolve_inputs")
        return {"request": context.input}

    @tasks.task("search")
    def search(context: TaskContext) -> dict[str, object]:
        calls.append("search")
        if context.input.get("fail"):
            raise OutOfRoom("No room.", next_action="Make room.")
        return waiting("half way", 0.5) if context.input.get("wait") else {"plans": []}

    @tasks.task("undo_search", undoes=("search",))
    def undo_search(context: TaskContext) -> dict[str, object]:
        calls.append("undo_search")
        if context.input.get("fail"):
            raise OutOfRoom("Not even for that.")
        return {}

    tasks.calls = calls  # type: ignore[attr-defined]
    return tasks


def perform(tasks: Tasks, run: Run, task: str, attempt: int = 1, **input: object) -> dict[str, object]:
    return tasks.handler({"task": task, "step": task, "run_id": run.id, "attempt": attempt, "input": input}, None)


def test_create_starts_one_execution_named_after_run_and_attempt(run: Run, started: list[str]) -> None:
    assert started == [f"{run.id}-1"]
    assert run.status == RunStatus.RUNNING and run.version == 2
    assert [step.status for step in run.steps] == [StepStatus.PENDING] * 3


def test_a_step_shows_its_progress_and_its_output(run: Run, tasks: Tasks) -> None:
    assert perform(tasks, run, "search", wait=True)["status"] == "waiting"
    step = runs.get(run.id).step("search")
    assert (step.status, step.progress, step.detail) == (StepStatus.RUNNING, 0.5, "half way")
    perform(tasks, run, "search")
    step = runs.get(run.id).step("search")
    assert (step.status, step.progress, step.output) == (StepStatus.SUCCEEDED, 1.0, {"plans": []})


def test_a_failed_run_says_why_and_keeps_the_error_of_its_step(run: Run, tasks: Tasks) -> None:
    with pytest.raises(OutOfRoom):
        perform(tasks, run, "search", fail=True)
    perform(tasks, run, "fail_run", error={"Error": "OutOfRoom", "Cause": "{}"})
    failed = runs.get(run.id)
    assert failed.status == RunStatus.FAILED and failed.error is not None
    assert failed.error.model_dump() == {"code": "out_of_room", "detail": "No room.", "next_action": "Make room."}


def test_an_unexpected_error_is_not_shown(run: Run, tasks: Tasks) -> None:
    @tasks.task("store_plans")
    def store_plans(context: TaskContext) -> dict[str, object]:
        raise KeyError("secret internals")

    with pytest.raises(KeyError):
        perform(tasks, run, "store_plans")
    error = runs.get(run.id).step("store_plans").error
    assert error is not None and "secret" not in error.model_dump_json()


def test_a_poll_that_gave_up_fails_the_running_step(run: Run, tasks: Tasks) -> None:
    perform(tasks, run, "search", wait=True)
    perform(tasks, run, "fail_run", error={"Error": "SearchTimeout", "Cause": "The search took too long."})
    failed = runs.get(run.id)
    assert failed.error is not None and failed.error.code == "search_timeout"
    assert failed.step("search").status == StepStatus.FAILED


def test_retry_takes_finished_steps_from_the_record(run: Run, tasks: Tasks, started: list[str]) -> None:
    perform(tasks, run, "resolve_inputs", model="m")
    with pytest.raises(OutOfRoom):
        perform(tasks, run, "search", fail=True)
    perform(tasks, run, "fail_run", error={"Error": "OutOfRoom", "Cause": "{}"})
    again = runs.retry(run.id)
    assert started[-1] == f"{run.id}-2" and again.error is None
    assert perform(tasks, run, "resolve_inputs", attempt=2) == {"request": {"model": "m"}}
    perform(tasks, run, "search", attempt=2)
    assert tasks.calls == ["resolve_inputs", "search", "search"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("fails", [False, True], ids=["undone", "undone in part"])
def test_a_step_that_was_taken_back_runs_again(run: Run, tasks: Tasks, fails: bool) -> None:
    perform(tasks, run, "search")
    with pytest.raises(OutOfRoom) if fails else nullcontext():
        perform(tasks, run, "undo_search", error={"Error": "X", "Cause": "{}"}, fail=fails)
    assert runs.get(run.id).step("search").status == StepStatus.UNDONE
    perform(tasks, run, "fail_run", error={"Error": "X", "Cause": "x"})
    runs.retry(run.id)
    perform(tasks, run, "search", attempt=2)
    assert tasks.calls == ["search", "undo_search", "search"]  # type: ignore[attr-defined]


def test_retry_from_an_earlier_step_and_from_an_unknown_one(run: Run, tasks: Tasks) -> None:
    perform(tasks, run, "resolve_inputs")
    perform(tasks, run, "fail_run", error={"Error": "X", "Cause": "x"})
    with pytest.raises(FoundryError, match="no step 'nope'"):
        runs.retry(run.id, "nope")
    assert runs.retry(run.id, "resolve_inputs").step("resolve_inputs").status == StepStatus.PENDING


def test_cancel_stops_the_next_step_but_not_the_compensation(run: Run, tasks: Tasks) -> None:
    runs.cancel(run.id)
    with pytest.raises(RunCancelled):
        perform(tasks, run, "search")
    perform(tasks, run, "undo_search", error={"Error": "RunCancelled"})
    perform(tasks, run, "fail_run", error={"Error": "RunCancelled", "Cause": "{}"})
    assert runs.get(run.id).status == RunStatus.CANCELLED
    with pytest.raises(Conflict):
        runs.cancel(run.id)


def _refuse(run: Run) -> None:
    raise OSError("no connection")


@pytest.mark.parametrize("again", [runs.retry, runs.restart])
def test_a_run_that_cannot_be_started_fails_and_can_be_retried(
    started: list[str], monkeypatch: pytest.MonkeyPatch, again: Callable[[str], Run]
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("foundry_core.runs.service.start_execution", _refuse)
        run = runs.create("simulate", subject_id="sim_1", project_id="p1", created_by="u1")
        assert run.status == RunStatus.FAILED and run.error is not None and run.error.code == "run_not_started"
        assert runs.get(run.id) == run
        assert again(run.id).status == RunStatus.FAILED
    assert again(run.id).status == RunStatus.RUNNING and started == [f"{run.id}-3"]


def test_cancelling_starts_what_was_never_started_so_that_it_can_end(
    run: Run, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started.clear()  # as if the process had died before it could start the execution
    with monkeypatch.context() as broken:
        broken.setattr("foundry_core.runs.service.start_execution", _refuse)
        with pytest.raises(Unavailable):
            runs.cancel(run.id)
    runs.cancel(run.id)
    assert started == [run.execution_name] and runs.get(run.id).cancel_requested


def test_a_superseded_attempt_cannot_write(run: Run, tasks: Tasks) -> None:
    runs.restart(run.id)
    for task in ("search", "undo_search", "finish_run", "fail_run"):
        with pytest.raises(StaleAttempt):
            perform(tasks, run, task, attempt=1)
    assert tasks.calls == []  # type: ignore[attr-defined]


def test_a_busy_service_is_retried_by_the_flow_and_told_to_the_reader(run: Run) -> None:
    tasks = Tasks("sim")

    @tasks.task("search")
    def search(context: TaskContext) -> dict[str, object]:
        raise EndpointConnectionError(endpoint_url="https://kms.example.com")

    with pytest.raises(TransientError):
        perform(tasks, run, "search")
    error = runs.get(run.id).step("search").error
    assert error is not None and (error.code, error.next_action) == ("transient", "Retry the run.")


def test_a_busy_table_is_retried_by_the_flow(run: Run, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://dynamodb.example.com")

    monkeypatch.setattr("foundry_core.tasks.store.update", busy)
    with pytest.raises(TransientError):
        perform(tasks, run, "finish_run")


def test_an_attempt_that_is_superseded_while_it_begins_does_nothing(
    run: Run, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = runs.get(run.id)
    runs.restart(run.id)
    monkeypatch.setattr("foundry_core.tasks.store.load", lambda run_id: seen)
    with pytest.raises(StaleAttempt):
        perform(tasks, run, "search", attempt=1)
    assert tasks.calls == []  # type: ignore[attr-defined]


def test_finish_keeps_the_result_of_the_flow(run: Run, tasks: Tasks) -> None:
    perform(tasks, run, "finish_run", result={"output": {"plan_count": 3}})
    done = runs.get(run.id)
    assert done.status == RunStatus.SUCCEEDED and done.result == {"plan_count": 3}
    with pytest.raises(Conflict):
        runs.retry(run.id)


def test_pages_are_per_project_and_newest_first(run: Run, started: list[str]) -> None:
    later = runs.create("simulate", subject_id="sim_2", project_id="p1", created_by="u1")
    runs.create("register_cluster", subject_id="c1", created_by="u1")
    first, cursor = runs.page_of("p1", 1, None)
    second, _end = runs.page_of("p1", 1, cursor)
    assert [one.id for one in first + second] == [later.id, run.id]
    assert [one.kind for one in runs.page_of(None, 10, None)[0]] == ["register_cluster"]
    assert {one.id for one in runs.unfinished()} >= {run.id, later.id}
    with pytest.raises(FoundryError, match="cursor"):
        runs.page_of("p2", 1, cursor)


def test_unknown_run() -> None:
    with pytest.raises(NotFound):
        runs.get("run_none")
