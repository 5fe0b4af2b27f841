"""`foundry simulate` offline: what it prints, how wide, and how it says no."""

import json
from pathlib import Path
from typing import Any

import pytest
from foundry_cli.errors import CliError
from foundry_cli.main import app
from typer.testing import CliRunner, Result

BASE = ["simulate", "--model", "meta-llama/Llama-3.1-8B", "--devices", "h100_sxm:1x8,l40s:1x4", "--concurrency", "32"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_answer_has_its_parts_and_is_at_most_100_columns_wide() -> None:
    shown = run(*BASE, "--ttft", "3000", "--tps", "20", "--engine", "vllm")
    assert shown.exit_code == 0, shown.output
    for part in ("/h", "Pareto front", "tokens/s per user", "vllm serve", "binds", "Launch", "TTFT", "Price"):
        assert part in shown.output
    assert max(map(len, shown.output.splitlines())) <= 100


def test_json_is_the_whole_result() -> None:
    shown = run(*BASE, "--json")
    result = json.loads(shown.output)
    assert result["feasible"]
    assert result["plans"][0]["cost_nanos_per_hour"] > 0


def test_infeasible_ends_with_status_one_and_the_nearest() -> None:
    shown = run(*BASE, "--tps", "5000")
    assert shown.exit_code == 1
    assert "No plan meets the service levels" in shown.output
    assert "Nearest service levels" in shown.output
    assert max(map(len, shown.output.splitlines())) <= 100


def test_too_much_load_is_said_to_be_that_whatever_else_is_missed() -> None:
    shown = run(*BASE[:3], "--devices", "h100_sxm:1x1", "--rate", "500", "--ttft", "500")
    said = " ".join(shown.output.split())
    assert shown.exit_code == 1 and "No plan carries the load: the request rate binds" in said
    assert "of 500 requests/s can be carried" in said and "No looser service level helps" in said
    assert "1 replica)" in said and "Nearest service levels" not in said


def test_a_workload_class_and_own_prices() -> None:
    shown = run("simulate", "--model", "qwen3-8b", "--devices", "h100_sxm:1x1@2.5", "--workload", "batch", "--json")
    result = json.loads(shown.output)
    assert result["plans"][0]["price_nanos_per_device_hour"] == 2_500_000_000


def test_what_a_class_or_the_defaults_ask_for_is_said() -> None:
    chat = " ".join(run(*BASE[:3], "--devices", "h100_sxm:1x1", "--workload", "chat").output.split())
    assert (
        "Asked: 1,000 tokens in, 300 out, 32 users at once; p95: first token within 1,000 ms, 20 tokens/s each." in chat
    )
    assert "Asked: 1,024 tokens in, 256 out, 4 requests/s." in run(*BASE[:-2], "--rate", "4").output


def test_a_config_file(tmp_path: Path) -> None:
    from foundry_sim.facts.architectures.catalogue import config_of

    (tmp_path / "config.json").write_text(json.dumps(config_of("Qwen/Qwen3-0.6B")))
    shown = run("simulate", "--model", str(tmp_path), "--devices", "l4:1x1", "--json")
    assert json.loads(shown.output)["model"] == tmp_path.name


def test_embedding_models_show_latency_not_tokens() -> None:
    shown = run("simulate", "--model", "BAAI/bge-m3", "--devices", "l4:1x1", "--workload", "embedding")
    assert "input tokens/s" in shown.output
    assert "LATENCY" in shown.output
    assert "$/1M" not in shown.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nobody/nothing", "--devices", "l4"], "not bundled"),
        (["--model", "Qwen/Quen3-8B", "--devices", "l4"], "near are Qwen/Qwen3-8B"),
        (["--model", "qwen3-8b", "--devices", "l4:1x100"], "72 devices"),
        (["--model", "qwen3-8b", "--devices", "l4:1@-3"], "USD"),
        (["--model", "qwen3-8b", "--devices", "l4", "--ttft", "nan"], "--ttft: nan is not a number"),
        (["--model", "qwen3-8b", "--devices", "l4", "--tps", "1e308"], "--tps: 1e+308 is out of range: it must be"),
        (["--model", "qwen3-8b", "--devices", "l4", "--replicas", "100000"], "--replicas: "),
        (["--model", "qwen3-8b", "--devices", "l4", "--lora", "100000"], "--lora: "),
        (["--model", "qwen3-8b", "--devices", "abacus"], "abacus"),
        (["--model", "qwen3-8b", "--devices", "l4:2y"], "DEVICE"),
        (["--model", "qwen3-8b", "--devices", "l4:0x1"], "DEVICE"),
        (["--model", "qwen3-8b"], "--devices"),
        (["--model", "qwen3-8b", "--devices", "l4", "--workload", "poetry"], "poetry"),
        (["--model", "qwen3-8b", "--devices", "l4", "--input-tokens", "900000"], "takes"),
        (["--model", "qwen3-8b", "--devices", "l4", "--rate", "3", "--concurrency", "4"], "either"),
        (["--model", "qwen3-8b", "--devices", "l4", "--ttft", "-5"], "--ttft: "),
        (["--model", "qwen3-8b", "--devices", "l4", "--rate", "0"], "--rate: "),
        (["--model", "qwen3-8b", "--devices", ","], "--devices"),
        (["--model", "qwen3-8b", "--devices", "l4", "--engine", "steam"], "known are vllm, sglang, trtllm"),
        (["--model", "qwen3-8b", "--devices", "abacus"], "mi300x"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str) -> None:
    shown = run("simulate", *arguments)
    assert isinstance(shown.exception, CliError)
    assert words in shown.exception.message
    assert "\n" not in shown.exception.message


def test_own_measurements_move_the_plans_and_a_number_counts_devices(tmp_path: Path) -> None:
    alone = ["simulate", "--model", "qwen3-8b", "--devices", "h100_sxm:1", "--concurrency", "16", "--engine", "vllm"]
    plain = json.loads(run(*alone, "--json").output)["plans"][0]
    assert plain["devices"] == 1
    row = {"model": "qwen3-8b", "device": "h100_sxm", "isl": 1024, "osl": 256,
           "load": {"kind": "closed", "concurrency": 16}}  # fmt: skip
    measured = {"tpot_ms": 2 * plain["predicted"]["tpot_ms"]["mean"]}
    (tmp_path / "points.jsonl").write_text(json.dumps({**row, "measured": measured}) + "\n")
    kept = str(tmp_path / "own.json")
    assert run("sim", "calibrate", kept, "--points", str(tmp_path / "points.jsonl")).exit_code == 0
    moved = json.loads(run(*alone, "--json", "--calibration", kept).output)["plans"][0]
    assert 1.4 < moved["predicted"]["tpot_ms"]["mean"] / plain["predicted"]["tpot_ms"]["mean"] < 2.0
    eight = json.loads(run(*alone[:4], "h100_sxm:16", "--concurrency", "5000", "--json").output)
    assert eight["plans"] or eight["nearest"]


def test_the_launch_command_can_be_copied() -> None:
    import shlex

    shown = run(*BASE, "--engine", "vllm").output
    block = shown.split("Launch\n")[1].split("\n\n")[0]
    command = json.loads(run(*BASE, "--engine", "vllm", "--json").output)["plans"][0]["launch_command"]
    assert shlex.split(block.replace("\\\n", " ")) == shlex.split(command)


def plan_of(*arguments: str) -> Any:
    return json.loads(run(*BASE, "--json", *arguments).output)["plans"][0]


def test_adapters_need_memory() -> None:
    plain, adapted = plan_of(), plan_of("--lora", "20", "--lora-rank", "64")
    assert plain["memory"]["lora_bytes"] == 0 < adapted["memory"]["lora_bytes"]


def test_replicas_and_the_longest_request_are_taken_as_given() -> None:
    plan = plan_of("--replicas", "3", "--max-model-len", "9000")
    assert plan["replicas"] == 3 and plan["limits"]["max_model_len"] == 9000


def test_what_is_blocked_is_not_proposed() -> None:
    first = plan_of()
    assert plan_of("--block", f"engine={first['engine']},reason=crashed, twice")["engine"] != first["engine"]
    everything = [part for name in ("vllm", "sglang", "trtllm") for part in ("--block", f"engine={name},reason=old")]
    shown = run(*BASE, *everything)
    assert shown.exit_code == 1 and "Blocked before: old." in shown.output


@pytest.mark.parametrize(
    "text", ["", ",", "engine", "engine=", "tp=two", "speed=1", "reason=only", "engine=steam", "device=abacus"]
)
def test_a_block_that_names_no_configuration_is_one_line(text: str) -> None:
    shown = run(*BASE, "--block", text)
    assert isinstance(shown.exception, CliError) and "--" in str(shown.exception.next_command)


def test_layouts_of_nodes_show_what_fits_and_why_not() -> None:
    shown = run("sim", "layouts", "--model", "qwen3-32b", "--devices", "h100_sxm:2x8,l40s:1x4")
    assert shown.exit_code == 0, shown.output
    assert "l40s, vllm bf16 TP1 PP1 EP1 DP1: weights need" in shown.output
    assert max(map(len, shown.output.splitlines())) <= 100
    found = json.loads(run("sim", "layouts", "--model", "qwen3-32b", "--devices", "l40s:1x4", "--json").output)
    assert {(item["tp"], item["max_replicas"]) for item in found if item["pp"] == 1} == {(1, 4), (2, 2), (4, 1)}


@pytest.mark.parametrize(
    "arguments",
    [["--model", "nope"], ["--model", "qwen3-8b", "--engine", "steam"], ["--model", "qwen3-8b", "--lora", "9" * 6]],
)
def test_mistakes_about_layouts_are_one_line(arguments: list[str]) -> None:
    shown = run("sim", "layouts", "--devices", "l40s", *arguments)
    assert isinstance(shown.exception, CliError) and "\n" not in shown.exception.message
