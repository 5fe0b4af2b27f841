"""`foundry simulate --cluster`: every option reaches the platform, or is refused."""

import json
from typing import Any

import pytest
from foundry_cli.errors import CliError
from foundry_cli.main import app
from typer.testing import CliRunner, Result

PATH = "/projects/prj_1/simulations"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["simulate", "--model", "llama", "--cluster", "gpus", *arguments])


def test_options_reach_the_platform(platform: Any) -> None:
    shown = run("--quantised", "--shared", "--expected", "--method", "heuristic", "--top", "7", "--purchase", "spot")
    assert shown.exception is None, shown.output
    body = platform.body("POST", PATH)
    assert (body["quantisation"], body["mode"], body["confidence"]) == ("allowed", "shared", "expected")
    assert (body["method"], body["max_plans"], body["purchase"]) == ("heuristic", 7, "spot")
    assert "mixed" not in body and "engines" not in body
    assert "1 h100_sxm" in shown.output


@pytest.mark.parametrize(
    ("arguments", "word"), [(["--mixed"], "--mixed"), (["--top", "21"], "--top"), (["--devices", "l4"], "--devices")]
)
def test_what_the_platform_does_not_know_is_refused(platform: Any, arguments: list[str], word: str) -> None:
    shown = run(*arguments)
    assert isinstance(shown.exception, CliError) and word in shown.exception.message
    assert platform.asked == []


def test_the_platform_takes_all_that_is_sent(platform: Any) -> None:
    from functions.sim.schemas import SimulationCreate

    run("--ttft", "500", "--rate", "2", "--engine", "vllm", "--quantised", "--top", "20")
    SimulationCreate(**platform.body("POST", PATH))


def test_the_replay_of_the_first_plan_is_told_as_offline(platform: Any) -> None:
    gaps = {"mean": 9.0, "p50": 8.0, "p95": 20.0, "p99": 40.0}
    replay = {"requests": 640, "goodput_share": 0.911, "goodput_requests_per_s": 13.3, "itl_ms": gaps, "preemptions": 0}
    platform.answers[f"{PATH}/sim_1"]["outcome"] = {"replay": replay}
    shown = run().output
    assert "ITL of the first plan: p50 8.0, p95 20.0, p99 40.0 ms" in shown
    assert "Goodput of the first plan: 13.30 req/s: 91.1% of 640 replayed requests" in shown


def test_infeasible_is_json_and_status_one(platform: Any) -> None:
    platform.answers[f"{PATH}/sim_1/plans"] = []
    levels = {"ttft_ms": 900.0, "tokens_per_second": None, "statistic": "mean"}
    nearest = {"service_levels": levels, "plan": platform.answers["/projects/prj_1/deployments"][0]["plan"]}
    outcome = {"headline": "No [plan].", "explanation": "Why.", "binding_constraint": "ttft_ms", "nearest": nearest}
    platform.answers[f"{PATH}/sim_1"]["outcome"] = outcome
    shown = run("--json")
    assert isinstance(shown.exception, CliError) and json.loads(shown.stdout)["plans"] == []
    shown = run()
    assert "No [plan]." in shown.stdout and "can do: ttft_ms 900, statistic mean, by" in shown.stdout
