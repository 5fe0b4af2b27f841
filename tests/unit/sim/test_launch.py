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


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("vllm", "--enable-lora --max-loras 3 --max-lora-rank 32"),  # of the ranks that it knows
        ("sglang", "--max-loras-per-batch 3 --max-lora-rank 20 --lora-target-modules all"),  # or it names no shape
        ("trtllm", "'lora_config: {max_lora_rank: 20, max_loras: 3, max_cpu_loras: 3, lora_target_modules: ["),
    ],
)
def test_adapters_have_the_options_without_which_no_engine_starts(engine: str, options: str) -> None:
    limits = EngineLimits(lora_adapters=3, lora_rank=20)
    assert options in command(Launch(LLAMA, engine, Layout(), Precision(), limits, 4096))
    assert "lora" not in command(Launch(LLAMA, engine, Layout(), Precision(), EngineLimits(), 4096))


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
