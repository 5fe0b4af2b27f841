"""A run whose execution ended without closing it is closed; a run that goes on, or has ended, is left alone."""

import pytest
from foundry_core import runs
from foundry_core.errors import Conflict, TransientError
from foundry_core.runs import Run, RunStatus, orphans

pytestmark = pytest.mark.usefixtures("aws_tables")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("foundry_core.runs.service.start_execution", lambda run: None)
    return runs.create("simulate", subject_id="sim_1", project_id="p1", created_by="u1")


def report(name: str) -> None:
    orphans.close({"detail": {"name": name, "status": "ABORTED"}}, None)


def test_an_open_run_is_closed_and_can_be_retried(run: Run) -> None:
    report(run.execution_name)
    closed = runs.get(run.id)
    assert closed.status == RunStatus.FAILED and closed.error is not None
    assert closed.error.code == "execution_ended"
    assert runs.retry(run.id).status == RunStatus.RUNNING


def test_a_later_attempt_goes_on(run: Run) -> None:
    runs.restart(run.id)
    report(run.execution_name)
    assert runs.get(run.id).status == RunStatus.RUNNING


def test_what_could_not_be_written_is_not_taken_for_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event is delivered again, and in the end to a queue that an alarm watches."""

    def lost(**_: object) -> None:
        raise Conflict("Another writer was faster.")

    monkeypatch.setattr("foundry_core.runs.store.write", lost)
    with pytest.raises(TransientError):
        report(run.execution_name)


@pytest.mark.parametrize("name", ["run_unknown-1", "by-hand", ""])
def test_other_executions_are_none_of_its_business(run: Run, name: str) -> None:
    report(name)
    assert runs.get(run.id).status == RunStatus.RUNNING
