"""Deployments: JSON alone on stdout for scripts; predicted against measured for people."""

import json
from typing import Any

import pytest
from foundry_cli.errors import CliError
from foundry_cli.main import app
from typer.testing import CliRunner

DEPLOY = ["deploy", "--model", "llama", "--cluster", "gpus", "--name", "chat"]
PROJECT = "/projects/prj_1"
ACCURACY = f"{PROJECT}/metrics/deployments/dep_1/accuracy"
COMPARISON = {"metric": "ttft_ms", "statistic": "mean", "predicted": 100.0, "measured": 80.0, "error_percent": 25.0}
PART = {"source": "live", "samples": 12, "concurrency": None, "note": None, "comparisons": [COMPARISON]}


@pytest.fixture
def accepted(platform: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A platform that takes a deployment."""
    run = platform.answers["/runs/run_1"]
    platform.answers[f"{PROJECT}/deployments"] = {"run": run, "deployment": {"id": "dep_1"}}
    return platform


def test_deploying_for_a_script_prints_the_deployment_alone(accepted: Any) -> None:
    shown = CliRunner().invoke(app, [*DEPLOY, "--json", "-y"])
    assert shown.exception is None, shown.output
    assert json.loads(shown.stdout)["id"] == "dep_1"
    assert accepted.body("POST", f"{PROJECT}/deployments")["plan"]["id"] == "plan_1"


def test_deploying_for_a_person_shows_the_plan_and_the_steps(accepted: Any) -> None:
    shown = CliRunner().invoke(app, DEPLOY, input="y\n")
    assert "1 h100_sxm" in shown.stdout and "Search (1 plan)" in shown.stdout and "Ready." in shown.stdout
    assert "$3" in shown.stderr and "$3" not in CliRunner().invoke(app, [*DEPLOY, "--json"], input="n\n").stdout


def test_a_script_hears_of_an_infeasible_request_on_stderr_only(accepted: Any) -> None:
    accepted.answers[f"{PROJECT}/simulations/sim_1/plans"] = []
    accepted.answers[f"{PROJECT}/simulations/sim_1"]["outcome"] = {"binding_constraint": "ttft_ms"}
    shown = CliRunner().invoke(app, [*DEPLOY, "--json", "-y"])
    assert isinstance(shown.exception, CliError) and "ttft_ms" in shown.exception.message and shown.stdout == ""


def test_a_deployment_shows_predicted_against_measured(platform: Any) -> None:
    platform.answers[ACCURACY] = {"items": [PART]}
    shown = CliRunner().invoke(app, ["deployments", "show", "chat"]).stdout
    assert "PREDICTED" in shown and "+25.0 %" in shown and "12 requests, source: live" in shown
    found = json.loads(CliRunner().invoke(app, ["deployments", "show", "chat", "--json"]).stdout)
    assert found["id"] == "dep_1" and found["accuracy"]["items"] == [PART]


def test_without_traffic_that_is_said(platform: Any) -> None:
    platform.answers[ACCURACY] = {"items": []}
    assert "Nothing was measured" in CliRunner().invoke(app, ["deployments", "show", "chat"]).stdout


def test_a_failed_deployment_says_why_and_what_to_do(platform: Any) -> None:
    error = {"code": "x", "detail": "No [gpu] is free.", "next_action": "Free GPUs, then retry the run."}
    platform.answers[f"{PROJECT}/deployments/dep_1"] |= {"status": "failed", "error": error}
    shown = CliRunner().invoke(app, ["deployments", "show", "chat"])
    assert shown.exit_code == 0, shown.exception
    assert "No [gpu] is free." in shown.stdout and "foundry runs retry run_1" in shown.stdout
    assert "measured" not in shown.stdout


@pytest.mark.parametrize(("command", "said"), [("sleep", "chat is asleep"), ("wake", "chat is awake")])
def test_a_deployment_sleeps_and_wakes(platform: Any, command: str, said: str) -> None:
    platform.answers[f"{PROJECT}/deployments/dep_1/{command}"] = {"run": platform.answers["/runs/run_1"]}
    shown = CliRunner().invoke(app, ["deployments", command, "chat"], input="y\n")
    assert shown.exception is None and said in shown.stdout
    assert platform.body("POST", f"{PROJECT}/deployments/dep_1/{command}") == {}


def test_a_deployment_is_put_to_sleep_only_after_a_yes(platform: Any) -> None:
    shown = CliRunner().invoke(app, ["deployments", "sleep", "chat"], input="n\n")
    assert shown.exit_code and not [asked for asked in platform.asked if asked[0] == "POST"]
