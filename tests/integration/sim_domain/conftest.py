"""Simulations without their state machine: its three tasks in order."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from foundry_core import runs
from foundry_core.runs import Run

from functions.sim.handler import task

EXAMPLES = Path(__file__).parents[3] / "examples" / "models"
GROUPS = [
    {"name": "h100-sxm-x8", "device": "h100_sxm", "product": "NVIDIA-H100-80GB-HBM3", "nodes": 2,
     "devices_per_node": 8, "gpu_resource": "nvidia.com/gpu", "node_selector": {}, "tolerations": []},
    {"name": "l40s-x4", "device": "l40s", "product": "NVIDIA-L40S", "nodes": 1, "devices_per_node": 4},
]  # fmt: skip


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    found: list[Run] = []
    monkeypatch.setattr("foundry_core.runs.service.start_execution", found.append)
    return found


@pytest.fixture
def config() -> Callable[[str], dict[str, Any]]:
    return lambda name: dict(json.loads((EXAMPLES / f"{name}.json").read_text()))


@pytest.fixture
def body(config: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return {
        "model": {
            "id": "mdl_1",
            "name": "llama",
            "config": config("llama-3.1-8b-instruct"),
            "parameters": 8_030_261_248,
        },
        "device_groups": GROUPS,
        "workload": {"input_tokens": 1024, "output_tokens": 256, "concurrency": 64},
        "service_levels": {"ttft_ms": 500, "tokens_per_second": 30},
    }


@pytest.fixture
def drive(lambda_context: SimpleNamespace) -> Callable[[str], Run]:
    """``drive(run_id)`` performs the flow and returns the ended run."""

    def perform(run: Run, step: str, state: dict[str, Any]) -> Any:
        payload = {"task": step, "step": step, "run_id": run.id, "attempt": run.attempt, "input": state}
        return json.loads(json.dumps(task(json.loads(json.dumps(payload)), lambda_context)))

    def driven(run_id: str) -> Run:
        run = runs.get(run_id)
        state: dict[str, Any] = {"run_id": run.id, "attempt": run.attempt, "subject_id": run.subject_id}
        try:
            for step in ("resolve_inputs", "search", "store_plans"):
                state[step] = {"output": perform(run, step, state)}
            assert len(json.dumps(state)) < 200_000  # a flow's state holds 256 KB
            perform(run, "finish_run", {**state, "result": state["store_plans"]})
        except Exception as error:
            cause = json.dumps({"errorMessage": str(error)})
            perform(run, "fail_run", {**state, "error": {"Error": type(error).__name__, "Cause": cause}})
        return runs.get(run_id)

    return driven
