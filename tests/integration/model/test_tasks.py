"""The registry's pages for the daily recommendations."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foundry_core.runs import Run
from foundry_core.tasks import TaskContext

from functions.model import tasks

CONFIG = json.loads((Path(__file__).parents[3] / "examples" / "models" / "llama-3.1-8b-instruct.json").read_text())
CLUSTERS = {"output": {"clusters": [{"id": "cls_1"}]}}
Call = Callable[..., Any]


@pytest.fixture
def register(call: Call) -> Callable[..., None]:
    def add(name: str, **more: Any) -> None:
        call("POST", "/models", {"name": name, "config": {**CONFIG, **more}}).ok(201)

    return add


def pages(clusters: dict[str, Any] = CLUSTERS) -> list[dict[str, Any]]:
    """What the flow gets from the step, look by look."""
    run = Run(id="run_1", kind="recommend", subject_id="2026-09-21", steps=[], created_by="u", created_at_ms=0)
    state, found = {"list_clusters": clusters}, []
    for _ in range(20):
        output = tasks.list_models(TaskContext(run, "list_models", state))
        found.append(output)
        state["list_models"] = {"output": output}
        if output.get("status") != "waiting":
            return found
    raise AssertionError("the pages do not end")


def test_models_come_page_by_page_each_once(register: Callable[..., None]) -> None:
    for number in range(7):
        register(f"m{number}")
    found = pages()
    assert [len(page["models"]) for page in found][:2] == [3, 3] and found[-1]["seen"] == 7
    names = [model["name"] for page in found for model in page["models"]]
    assert sorted(names) == [f"m{number}" for number in range(7)]
    assert found[0]["models"][0]["config"]["hidden_size"] == CONFIG["hidden_size"]


def test_a_config_that_is_too_large_for_a_flow_is_left_out_and_said(register: Callable[..., None]) -> None:
    register("large", note="x" * 50_000)
    register("small")
    found = pages()
    assert [model["name"] for page in found for model in page["models"]] == ["small"]
    assert [one["name"] for one in found[-1]["left_out"]] == ["large"]


def test_the_number_of_models_is_bounded(register: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MAX_MODELS", 3)
    for number in range(5):
        register(f"m{number}")
    [page] = pages()
    assert page["seen"] == 3 and page["cursor"] is None and page["left_out"][-1]["name"] == "others"


def test_without_a_cluster_no_model_is_read(register: Callable[..., None]) -> None:
    register("m")
    [page] = pages({"output": {"clusters": []}})
    assert page["models"] == [] and page["cursor"] is None
