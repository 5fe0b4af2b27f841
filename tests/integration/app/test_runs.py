"""Runs over HTTP: polled by ETag, steered by those whom the run's project allows."""

from collections.abc import Callable
from typing import Any

import pytest
from foundry_core import runs
from foundry_core.runs import Run

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    def start(run: Run) -> None:
        if run.execution_name not in names:  # the name is the identity of an execution
            names.append(run.execution_name)

    monkeypatch.setattr("foundry_core.runs.service.start_execution", start)
    return names


@pytest.fixture
def run(project: str) -> Run:
    return runs.create("simulate", subject_id="sim_1", project_id=project, created_by="u", input={"inner": "secret"})


@pytest.fixture
def platform_run(aws_tables: None) -> Run:
    return runs.create("register_cluster", subject_id="cls_1", created_by="u")


def fail(run: Run) -> None:
    from foundry_core.tasks import Tasks

    payload = {"task": "fail_run", "step": "fail_run", "run_id": run.id, "attempt": run.attempt,
               "input": {"error": {"Error": "Boom", "Cause": "It broke."}}}  # fmt: skip
    Tasks("app").handler(payload, None)


def test_polling_costs_nothing_while_nothing_changes(call: Call, run: Run) -> None:
    answer = call("GET", f"/runs/{run.id}", None, "developer")
    assert answer.ok()["status"] == "running" and len(answer.body["steps"]) == 3
    unchanged = call("GET", f"/runs/{run.id}", None, "developer", {"if-none-match": answer.headers["etag"]})
    assert (unchanged.status, unchanged.body) == (304, None)
    assert unchanged.headers["etag"] == answer.headers["etag"]
    runs.cancel(run.id)
    assert call("GET", f"/runs/{run.id}", None, "developer", {"if-none-match": answer.headers["etag"]}).status == 200


def test_what_steps_hand_on_is_not_shown(call: Call, run: Run) -> None:
    shown = call("GET", f"/runs/{run.id}").ok()
    assert "input" not in shown and "output" not in shown["steps"][0] and "secret" not in str(shown)


def test_cancel_and_retry(call: Call, run: Run, started: list[str]) -> None:
    cancelled = call("POST", f"/runs/{run.id}/cancel", {}, "developer")
    assert cancelled.ok(202)["cancel_requested"] and cancelled.headers["location"] == f"/runs/{run.id}"
    call("POST", f"/runs/{run.id}/retry", {}, "developer").problem(409, "run_not_retriable")
    fail(run)
    call("POST", f"/runs/{run.id}/cancel", {}, "developer").problem(409, "run_ended")
    call("POST", f"/runs/{run.id}/retry", {"from_step": "nope"}, "developer").problem(422, "unknown_step")
    again = call("POST", f"/runs/{run.id}/retry", {"from_step": "search"}, "developer").ok(202)
    assert (again["attempt"], again["status"], again["cancel_requested"]) == (2, "running", False)
    assert started == [f"{run.id}-1", f"{run.id}-2"]


def test_retry_needs_no_body(call: Call, run: Run) -> None:
    fail(run)
    assert call("POST", f"/runs/{run.id}/retry", None, "developer").ok(202)["attempt"] == 2


def test_a_retry_with_the_same_key_starts_one_attempt(call: Call, run: Run, started: list[str]) -> None:
    fail(run)
    first, second = (call("POST", f"/runs/{run.id}/retry", {}, headers={"idempotency-key": "k"}) for _ in range(2))
    assert first.ok(202) == second.ok(202) and started == [f"{run.id}-1", f"{run.id}-2"]


def test_strangers_see_no_run_and_viewers_only_look(call: Call, run: Run, project: str, join: Any) -> None:
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    call("GET", f"/runs/{run.id}", None, join(other, "owner")).problem(404, "run_not_found")
    viewer = join(project, "viewer")
    call("GET", f"/runs/{run.id}", None, viewer).ok()
    for what in ("cancel", "retry"):
        call("POST", f"/runs/{run.id}/{what}", {}, viewer).problem(403, "forbidden")
    call("GET", "/runs/run_none").problem(404, "run_not_found")


def test_platform_runs_are_for_operators(call: Call, platform_run: Run) -> None:
    path = f"/runs/{platform_run.id}"
    call("GET", path, None, "auditor").ok()
    call("POST", f"{path}/cancel", {}, "auditor").problem(403, "forbidden")
    call("GET", path, None, "developer").problem(403, "forbidden")
    call("POST", f"{path}/cancel", {}, "operator").ok(202)


def test_lists_are_per_project_and_newest_first(call: Call, run: Run, platform_run: Run, project: str) -> None:
    later = runs.create("simulate", subject_id="sim_2", project_id=project, created_by="u")
    first = call("GET", "/runs", None, "developer", project_id=project, limit=1).ok()
    second = call("GET", "/runs", None, "developer", project_id=project, limit=1, cursor=first["next_cursor"]).ok()
    assert [one["id"] for one in first["items"] + second["items"]] == [later.id, run.id]
    assert [one["id"] for one in call("GET", "/runs").ok()["items"]] == [platform_run.id]
    call("GET", "/runs", None, "developer").problem(403, "forbidden")
    call("GET", "/runs", None, "developer", project_id="prj_x").problem(404, "project_not_found")
    call("GET", "/runs", cursor=first["next_cursor"]).problem(422, "bad_cursor")
