"""Daily recommendations and blocked configurations in the terminal."""

import json
from typing import Any

from foundry_cli.main import app
from typer.testing import CliRunner

from .conftest import PLAN, RUN

CHOICES = [
    {"cluster_id": "c1", "cluster_name": "east", "cost_nanos_per_hour": 3_000_000_000, "explanation": "", "plan": PLAN},
    {"cluster_id": "c2", "cluster_name": "west", "cost_nanos_per_hour": None, "explanation": "no room", "plan": None},
]
FOUND = [{"model_id": "m1", "model_name": "llama", "workload_class": "chat", "choices": CHOICES, "day": "2026-09-21"}]
BLOCKED = {"id": "blk_1", "model": None, "engine": "vllm", "device": "l40s", "weights": None, "tp": 2, "pp": None,
           "ep": None, "reason": "out of memory"}  # fmt: skip


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_recommendations_show_cluster_price_plan_and_day(platform: Any) -> None:
    platform.answers["/simulator/recommendations"] = FOUND
    shown = run("recommendations", "list").stdout
    first, second = [line for line in shown.splitlines() if "2026-09-21" in line]
    assert "east" in first and "3.00" in first and "1 h100_sxm, vllm bf16" in first
    assert "west" in second and "–" in second
    assert "llama on west: no room" in shown
    assert json.loads(run("recommendations", "list", "--json").stdout) == FOUND


def test_no_recommendations_says_how_to_get_some(platform: Any) -> None:
    platform.answers["/simulator/recommendations"] = []
    assert "foundry recommendations refresh" in run("recommendations", "list").stdout


def test_refresh_follows_the_run(platform: Any) -> None:
    left_out = {"left_out": [{"name": "old", "reason": "It is failed."}]}
    platform.answers["/simulator/recommendations"] = {"run": RUN, "items": FOUND, "next_cursor": None}
    platform.answers["/runs/run_1"] = {**RUN, "result": left_out}
    shown = run("recommendations", "refresh")
    assert shown.exit_code == 0, shown.output
    assert "Left out old: It is failed." in shown.stdout and "east" in shown.stdout


def test_a_configuration_is_blocked_with_its_reason(platform: Any) -> None:
    platform.answers["/simulator/blocked"] = BLOCKED
    shown = run("blocked", "add", "--engine", "vllm", "--device", "l40s", "--tp", "2", "--reason", "out of memory")
    assert shown.exit_code == 0 and "blk_1" in shown.stdout
    assert platform.body("POST", "/simulator/blocked") == {key: value for key, value in BLOCKED.items() if key != "id"}


def test_blocked_configurations_are_listed_and_removed(platform: Any) -> None:
    platform.answers["/simulator/blocked"] = [BLOCKED]
    assert "out of memory" in run("blocked", "list").stdout
    platform.answers["/simulator/blocked/blk_1"] = {}
    assert run("blocked", "remove", "blk_1", "--yes").exit_code == 0
    assert ("DELETE", "/simulator/blocked/blk_1", None) in platform.asked
