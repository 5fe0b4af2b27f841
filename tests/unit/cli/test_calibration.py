"""A project's own measurements in the terminal: added, measured of a deployment, taken back."""

import json
from pathlib import Path
from typing import Any

import pytest
from foundry_cli.errors import CliError
from foundry_cli.main import app
from typer.testing import CliRunner

HERE = "/projects/prj_1"
PATH = f"{HERE}/simulator/calibration"
ROW = {"model": "qwen3-8b", "device": "h100_sxm", "isl": 100, "osl": 50, "load": {"kind": "closed", "concurrency": 4}}
POINT = {"row": ROW, "ttft_ms": None, "tpot_ms": 9.0, "predicted_ttft_ms": 50.0, "predicted_tpot_ms": 8.0}
NEWEST = {"version": 2, "point_count": 1, "reverts_to": None, "created_at_ms": 1_767_225_600_000, "points": [POINT]}
PLAN = {"device": "h100_sxm", "engine": "vllm", "tp": 2, "pp": 1, "ep": 1, "dp": 1, "replicas": 2,
        "precision": {**dict.fromkeys(("weights", "activations", "kv", "moe"), "bf16"), "label": "x"}}  # fmt: skip
DEPLOYMENT = {"id": "dep_1", "project_id": "prj_1", "name": "chat", "model_id": "mdl_1", "plan": PLAN}


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["calibration", *arguments])


def part(samples: int = 40, source: str = "live") -> dict[str, Any]:
    means = [
        {"metric": name, "statistic": "mean", "measured": ms} for name, ms in (("ttft_ms", 90.0), ("tpot_ms", 11.0))
    ]
    lines = [*means, *({**line, "statistic": "p99", "measured": 999.0} for line in means)]
    return {"source": source, "samples": samples, "concurrency": 12.0, "comparisons": lines}


@pytest.fixture
def measured(platform: Any) -> Any:
    usage = {"group": "chat", "requests": 10, "input_tokens": 5000, "output_tokens": 1000}
    platform.answers |= {
        f"{PATH}/points": NEWEST, f"{HERE}/deployments": [DEPLOYMENT], f"{HERE}/deployments/dep_1": DEPLOYMENT,
        "/models/mdl_1": {"id": "mdl_1", "name": "qwen", "config": {"hidden_size": 8}},
        f"{HERE}/metrics/deployments/dep_1/accuracy": {"items": [part()]}, f"{HERE}/metrics/usage": {"items": [usage]},
    }  # fmt: skip
    return platform


def test_what_a_deployment_measured_becomes_a_point(measured: Any) -> None:
    shown = run("measure", "chat")
    assert shown.exit_code == 0, shown.output
    [point] = measured.body("POST", f"{PATH}/points")["points"]
    assert point["measured"] == {"ttft_ms": 90.0, "tpot_ms": 11.0}
    request = point["request"]
    assert request["model"] == {"hidden_size": 8, "_name_or_path": "qwen"}
    assert (request["isl"], request["osl"], request["load"]) == (500.0, 100.0, {"kind": "closed", "concurrency": 6.0})
    assert (request["tp"], request["precision"]["kv"]) == (2, "bf16") and "label" not in request["precision"]
    assert "Version 2 is in force" in shown.output and "9.0" in shown.output


@pytest.mark.parametrize("items", [[], [part(samples=3)], [part(source="twin")]], ids=["none", "few", "twin"])
def test_too_little_live_traffic_is_no_measurement(measured: Any, items: list[Any]) -> None:
    measured.answers[f"{HERE}/metrics/deployments/dep_1/accuracy"] = {"items": items}
    shown = run("measure", "chat")
    assert isinstance(shown.exception, CliError) and "fewer than 20" in shown.exception.message


def test_a_file_of_points_is_sent(platform: Any, tmp_path: Path) -> None:
    platform.answers[f"{PATH}/points"] = NEWEST
    (tmp_path / "points.jsonl").write_text(json.dumps({**ROW, "measured": {"tpot_ms": 9}}) + "\n")
    assert run("add", str(tmp_path / "points.jsonl")).exit_code == 0
    assert platform.body("POST", f"{PATH}/points") == {"points": [{"request": ROW, "measured": {"tpot_ms": 9}}]}


def test_versions_and_the_way_back(platform: Any) -> None:
    platform.answers[f"{PATH}/versions"] = [{**NEWEST, "version": 3, "reverts_to": 1}, NEWEST]
    shown = run("list").stdout
    assert "as version 1" in shown and "added" in shown and "2026-01-01" in shown
    platform.answers[f"{PATH}/revert"] = {**NEWEST, "point_count": 0, "points": []}
    assert "predictions are as shipped" in run("revert", "0").stdout
    assert platform.body("POST", f"{PATH}/revert") == {"version": 0}
