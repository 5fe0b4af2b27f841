"""The command that starts a plan loads weights that are in the plan's format."""

import shlex
from dataclasses import replace
from typing import Any

import pytest
from foundry_sim.facts.architecture import resolve
from foundry_sim.facts.memory import EngineLimits
from foundry_sim.facts.precision import Precision
from foundry_sim.facts.weights import Layout
from foundry_sim.search.launch import ENGINES, Launch, command
from foundry_sim.search.plans import DeviceGroup, SimulationRequest, Workload
from foundry_sim.search.search import simulate

LLAMA = resolve("meta-llama/Llama-3.1-8B-Instruct")


def words(engine: str, precision: Precision, quantise: str = "", **changed: Any) -> list[str]:
    launch = Launch(LLAMA, engine, Layout(), precision, EngineLimits(), 4096, quantise)
    return shlex.split(command(replace(launch, **changed)))


@pytest.mark.parametrize("engine", ENGINES)
def test_another_format_needs_another_checkpoint(engine: str) -> None:
    assert LLAMA.name in words(engine, Precision("bf16")) and LLAMA.name in words(engine, Precision("fp16"))
    assert f"<int4 checkpoint of {LLAMA.name}>" in words(engine, Precision("int4"))
    assert LLAMA.name in words(engine, Precision("fp8"), "fp8")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_name_is_one_word_for_the_shell(engine: str) -> None:
    hostile = replace(LLAMA, name="my models/it's $(id); --trust")
    assert hostile.name in words(engine, Precision("bf16"), architecture=hostile)


@pytest.mark.parametrize(("nodes", "spans"), [(2, True), (1, False)])
def test_a_replica_on_several_nodes_is_said_to_be(nodes: int, spans: bool) -> None:
    group = DeviceGroup(name="h100", device="h100_sxm", nodes=nodes, devices_per_node=8 // nodes)
    work = Workload(input_tokens=500, output_tokens=100, concurrency=4)
    found = simulate(
        SimulationRequest(model="meta-llama/Llama-3.1-405B-Instruct-FP8", device_groups=[group], workload=work)
    )
    assert found.plans[0].devices == 8
    assert any("spans nodes" in warning for warning in found.warnings) is spans
