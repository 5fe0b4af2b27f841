"""The names that resolve offline."""

import json
from typing import Any

import pytest
from foundry_cli.main import app
from foundry_sim.errors import SimulatorError
from foundry_sim.facts import architecture, devices
from typer.testing import CliRunner


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["sim", *arguments])


def test_every_bundled_model_is_listed_and_can_be_searched() -> None:
    found = json.loads(run("models", "--json").stdout)
    assert [item["name"] for item in found] == list(architecture.names()) and all(i["parameters"] > 0 for i in found)
    shown = run("models", "QWEN3-32b").stdout
    assert "Qwen/Qwen3-32B" in shown and "32.8 B" in shown and "llama" not in shown.lower()


def test_every_device_is_listed_with_memory_and_price() -> None:
    found = json.loads(run("devices", "--json").stdout)
    assert [item["name"] for item in found] == list(devices.names())
    shown = run("devices", "h100_sxm").stdout
    assert "80" in shown and "$" in shown and max(map(len, run("devices").stdout.splitlines())) <= 100


def test_nothing_found_is_a_sentence() -> None:
    assert run("models", "zzz").stdout.strip() == "No bundled model has 'zzz' in its name."
    assert "zzz" in run("devices", "zzz").stdout


@pytest.mark.parametrize(("name", "word"), [("h10_sxm", "h100_sxm"), ("@@@@@@", "foundry sim devices")])
def test_a_mistyped_device_gets_the_nearest_names(name: str, word: str) -> None:
    with pytest.raises(SimulatorError, match=word):
        devices.device(name)
