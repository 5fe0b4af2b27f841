"""The state machines as text: every placeholder is filled, every task is there, every state keeps the contract."""

import importlib
import json
import re
from typing import Any

import pytest
from foundry_core.runs.flows import FLOWS

from stacks.constructs.flow import DEFINITIONS

DOMAINS = {"AppTaskArn": "app", "ModelTaskArn": "model", "SimTaskArn": "sim", "ClusterTaskArn": "cluster"}
RUNTIME_TASKS = {"finish_run", "fail_run"}
ALLOWED = {"Task", "Choice", "Wait", "Pass", "Fail", "Succeed"}  # types that run the same on all three engines
KINDS = sorted(path.name.split(".")[0] for path in DEFINITIONS.glob("*.asl.json"))
STATES = [
    (kind, name) for kind in KINDS for name in json.loads((DEFINITIONS / f"{kind}.asl.json").read_text())["States"]
]


def machine(stacks: Any, kind: str) -> dict[str, Any]:
    name = f"foundry-test-{kind.replace('_', '-')}"
    found: dict[str, Any] = stacks.one("AWS::StepFunctions::StateMachine", name).properties
    return found


def state(kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEFINITIONS / f"{kind}.asl.json").read_text())["States"][name]
    return found


def test_there_is_a_machine_for_every_kind_of_run(stacks: Any) -> None:
    assert sorted(FLOWS) == KINDS
    assert len(stacks.all("AWS::StepFunctions::StateMachine")) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_placeholders_are_filled_with_functions(stacks: Any, kind: str) -> None:
    properties = machine(stacks, kind)
    placeholders = set(re.findall(r"\$\{(\w+)\}", properties["DefinitionString"]))
    assert placeholders == set(properties["DefinitionSubstitutions"])
    for name, value in properties["DefinitionSubstitutions"].items():
        assert stacks.target("workflows", value).name == f"foundry-test-{DOMAINS[name]}-task"


@pytest.mark.parametrize("kind", KINDS)
def test_the_template_holds_the_file(stacks: Any, kind: str) -> None:
    file = json.loads((DEFINITIONS / f"{kind}.asl.json").read_text())
    assert json.loads(machine(stacks, kind)["DefinitionString"]) == file


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_logged_but_not_what_people_typed(stacks: Any, kind: str) -> None:
    logging = machine(stacks, kind)["LoggingConfiguration"]
    assert (logging["Level"], logging["IncludeExecutionData"]) == ("ALL", False)


@pytest.mark.parametrize(("kind", "name"), STATES)
def test_every_task_exists_in_its_domain(kind: str, name: str) -> None:
    found = state(kind, name)
    if found["Type"] != "Task":
        return
    domain = DOMAINS[found["Parameters"]["FunctionName"].strip("${}")]
    tasks = importlib.import_module(f"functions.{domain}.tasks").tasks
    assert found["Parameters"]["Payload"]["task"] in tasks.names


@pytest.mark.parametrize(("kind", "name"), STATES)
def test_states_keep_to_what_every_engine_runs(kind: str, name: str) -> None:
    found = state(kind, name)
    assert found["Type"] in ALLOWED
    if found["Type"] != "Task":
        return
    payload = found["Parameters"]["Payload"]
    assert found["Resource"] == "arn:aws:states:::lambda:invoke" and 0 < found["TimeoutSeconds"] <= 930
    assert payload == {
        "task": payload["task"],
        "step": name,
        "run_id.$": "$.run_id",
        "attempt.$": "$.attempt",
        "input.$": "$",
    }
    assert found["Catch"][0]["ErrorEquals"] == ["StaleAttempt"] and found["Catch"][0]["Next"] == "superseded"
    assert name == "fail_run" or found["Catch"][-1]["ErrorEquals"] == ["States.ALL"]


@pytest.mark.parametrize("kind", KINDS)
def test_steps_that_people_see_are_the_states_of_the_flow(kind: str) -> None:
    """In the order of the way that leads to success."""
    name, forward = json.loads((DEFINITIONS / f"{kind}.asl.json").read_text())["StartAt"], []
    while name != "succeeded":
        found = state(kind, name)
        if found["Type"] == "Task" and name not in RUNTIME_TASKS:
            forward.append(name)
        name = found["Choices"][0]["Next"] if found["Type"] == "Choice" else found["Next"]
    assert forward == list(FLOWS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_no_flow_has_a_timeout_that_would_skip_compensation(kind: str) -> None:
    assert "TimeoutSeconds" not in json.loads((DEFINITIONS / f"{kind}.asl.json").read_text())


def test_the_contract_is_written_down() -> None:
    text = (DEFINITIONS / "README.md").read_text()
    for kind in KINDS:
        section = text.split(f"## {kind}\n")[1].split("\n## ")[0]
        for step in FLOWS[kind]:
            assert f"| `{step}`" in section, (kind, step)
