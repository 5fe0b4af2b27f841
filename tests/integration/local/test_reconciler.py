"""Interrupted runs against the runs table and state machines on moto."""

import json
from typing import Any

import pytest
from foundry_core import aws, runs
from foundry_core.runs import Run
from foundry_core.runs import service as runs_service
from foundry_core.settings import settings
from foundry_local import reconciler

WAIT = {"StartAt": "wait", "States": {"wait": {"Type": "Wait", "Seconds": 600, "End": True}}}


@pytest.fixture(autouse=True)
def machine(aws_tables: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """moto does not execute machines by default: what is started stays RUNNING until it is stopped."""
    arn: str = aws.client("stepfunctions").create_state_machine(
        name="simulate", definition=json.dumps(WAIT), roleArn="arn:aws:iam::123456789012:role/any"
    )["stateMachineArn"]
    monkeypatch.setenv("SIMULATE_ARN", arn)
    settings.cache_clear()
    return arn


def new_run() -> Run:
    return runs.create("simulate", subject_id="s1", created_by="u1", project_id="p1")


def executions(machine: str) -> dict[str, str]:
    found = aws.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]
    return {execution["name"]: execution["status"] for execution in found}


def lose(machine: str, run: Run) -> None:
    """What a restart does to a running execution."""
    arn = machine.replace(":stateMachine:", ":execution:") + f":{run.execution_name}"
    aws.client("stepfunctions").stop_execution(executionArn=arn)


def test_a_run_whose_execution_is_gone_goes_on_as_the_next_attempt(machine: str) -> None:
    lost, running = new_run(), new_run()
    lose(machine, lost)
    assert reconciler.reconcile() == [f"{lost.id}-2"]
    assert (runs.get(lost.id).attempt, runs.get(lost.id).status) == (2, "running")
    assert runs.get(running.id).attempt == 1
    assert executions(machine)[f"{lost.id}-2"] == "RUNNING"


def test_a_run_that_never_started_is_started(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(run: Run) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(runs_service, "start_execution", crash)
        new_run()
    (run,) = list(runs.unfinished())
    assert reconciler.reconcile() == [f"{run.id}-2"]


def test_a_run_that_has_ended_is_left_alone(machine: str) -> None:
    run = new_run()
    runs_service.store.update(run.id, lambda one: runs_service.end(one, runs.RunStatus.SUCCEEDED))
    lose(machine, run)
    assert reconciler.reconcile() == []


def test_one_that_cannot_be_restarted_does_not_stop_the_others(
    machine: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = new_run(), new_run()
    for run in (first, second):
        lose(machine, run)
    restart = runs.restart

    def refuse(run_id: str) -> Any:
        if run_id == first.id:
            raise LookupError("no state machine for runs of kind 'simulate'")
        return restart(run_id)

    monkeypatch.setattr(runs, "restart", refuse)
    assert reconciler.reconcile() == [f"{second.id}-2"]
    assert first.id in caplog.text
