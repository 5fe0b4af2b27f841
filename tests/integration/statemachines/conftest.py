"""The state machines of the synthesized template on moto's engine, with task functions in this process.

Nothing really waits: Wait states are recorded, retry delays skipped. `start` returns when the execution has ended; what
a function starts by itself runs in `finish`.
"""

import io
import itertools
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.awslambda.models import LambdaFunction
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker

CONFIG: Any = {"stepfunctions": {"execute_state_machine": True}, "lambda": {"use_docker": True}}
Handler = Callable[[str, dict[str, Any]], Any]  # (domain, payload) → output
_numbers = itertools.count(1)


@pytest.fixture
def failure() -> Callable[[str], Exception]:
    """Makes an exception whose class has the given name, which is all that a flow sees of it."""
    return lambda name: type(name, (Exception,), {})(f"scripted {name}")


@dataclass
class ScriptedTasks:
    """Answers of the task functions by step: an output, an exception, or a list of them, one per call."""

    script: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, domain: str, payload: dict[str, Any]) -> Any:
        self.calls.append((domain, payload))
        answer = self.script.get(payload["step"], {"status": "ready"})
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def steps(self) -> list[str]:
        return [payload["step"] for _, payload in self.calls]

    def input_of(self, step: str) -> dict[str, Any]:
        """What the last call of ``step`` saw as the state of the execution."""
        state: dict[str, Any] = [payload["input"] for _, payload in self.calls if payload["step"] == step][-1]
        return state


@dataclass(frozen=True)
class Execution:
    status: str
    error: str | None
    cause: str | None
    output: dict[str, Any] | None
    arn: str

    @property
    def states(self) -> list[str]:
        """Names of the states in the order they were entered, out of the execution history."""
        pages = boto3.client("stepfunctions").get_paginator("get_execution_history").paginate(executionArn=self.arn)
        entered = [event.get("stateEnteredEventDetails") for page in pages for event in page["events"]]
        return [details["name"] for details in entered if details]


@dataclass
class Machines:
    arns: Mapping[str, str]
    definitions: Mapping[str, Any]
    handler: Handler = lambda domain, payload: {}
    waits: list[float] = field(default_factory=list)
    pending: list[ExecutionWorker] = field(default_factory=list)

    def finish(self) -> None:
        """Run what has been started, in this thread and to the end."""
        while self.pending:
            self.pending.pop(0)._execution_logic()

    def start(self, kind: str, run_id: str | None = None, attempt: int = 1, **more: Any) -> Execution:
        run_id = run_id or f"run-{next(_numbers)}"
        state = {"run_id": run_id, "attempt": attempt, "subject_id": "subject-1", "input": {}, **more}
        client = boto3.client("stepfunctions")
        arn = client.start_execution(
            stateMachineArn=self.arns[kind], name=f"{run_id}-{attempt}", input=json.dumps(state)
        )["executionArn"]
        self.finish()
        done = client.describe_execution(executionArn=arn)
        output = json.loads(done["output"]) if done.get("output") else None
        return Execution(done["status"], done.get("error"), done.get("cause"), output, arn)


@pytest.fixture(scope="module")
def _machines(templates: dict[str, Any]) -> Iterator[Machines]:
    with mock_aws(config=CONFIG), pytest.MonkeyPatch.context() as patch:
        machines = _create(templates["workflows"]["Resources"])
        patch.setattr(LambdaFunction, "_invoke_lambda", _invoker(machines))
        patch.setattr(WaitFunction, "_wait_interval", lambda _, env, wait_seconds: machines.waits.append(wait_seconds))
        patch.setattr(retrier_decl, "time", SimpleNamespace(sleep=lambda seconds: None))
        patch.setattr(ExecutionWorker, "start", lambda worker: machines.pending.append(worker))
        patch.setattr(lambda_eval_utils, "boto_client_for", _one_client())
        patch.setattr(AmazonStateLanguageParser, "parse", staticmethod(cache(AmazonStateLanguageParser.parse)))
        yield machines


@pytest.fixture
def machines(_machines: Machines) -> Machines:
    _machines.waits.clear()
    return _machines


@pytest.fixture
def tasks(machines: Machines) -> ScriptedTasks:
    scripted = ScriptedTasks()
    machines.handler = scripted
    return scripted


def _one_client() -> Callable[..., Any]:
    """moto makes a client per task otherwise, which is most of the time of a test."""
    client = boto3.client("lambda")
    return lambda **_: client


def _invoker(machines: Machines) -> Callable[[LambdaFunction, Any], tuple[str, bool, str]]:
    """moto's Lambda executor, replaced by a call in this process that reports errors as Lambda does."""

    def invoke(function: LambdaFunction, event: Any = None) -> tuple[str, bool, str]:
        payload = json.loads(event) if isinstance(event, str | bytes) else event
        domain = function.handler.split(".")[1]
        try:
            return json.dumps(machines.handler(domain, payload)), False, ""
        except Exception as problem:
            said = {"errorMessage": str(problem), "errorType": type(problem).__name__, "stackTrace": []}
            return json.dumps(said), True, ""

    return invoke


def _create(resources: Mapping[str, Any]) -> Machines:
    """Functions and state machines of the template in moto."""
    role = _create_role()
    functions = {id_: r["Properties"] for id_, r in resources.items() if r["Type"] == "AWS::Lambda::Function"}
    arns = {id_: _create_function(properties, role) for id_, properties in functions.items()}
    machines = [r["Properties"] for r in resources.values() if r["Type"] == "AWS::StepFunctions::StateMachine"]
    return Machines(
        {_kind(machine): _create_machine(machine, arns, role) for machine in machines},
        {_kind(machine): json.loads(machine["DefinitionString"]) for machine in machines},
    )


def _kind(machine: Mapping[str, Any]) -> str:
    return str(machine["StateMachineName"]).removeprefix("foundry-test-").replace("-", "_")


def _create_role() -> str:
    services = {"Service": ["lambda.amazonaws.com", "states.amazonaws.com"]}
    trust = {"Statement": [{"Effect": "Allow", "Principal": services, "Action": "sts:AssumeRole"}]}
    made = boto3.client("iam").create_role(RoleName="any", AssumeRolePolicyDocument=json.dumps(trust))
    return made["Role"]["Arn"]


def _create_function(properties: Mapping[str, Any], role: str) -> str:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("empty.py", "")
    made = boto3.client("lambda").create_function(
        FunctionName=properties["FunctionName"], Runtime=properties["Runtime"], Role=role,
        Handler=properties["Handler"], Code={"ZipFile": archive.getvalue()},
    )  # fmt: skip
    return made["FunctionArn"]


def _create_machine(machine: Mapping[str, Any], arns: Mapping[str, str], role: str) -> str:
    text: str = machine["DefinitionString"]
    for name, value in machine["DefinitionSubstitutions"].items():
        text = text.replace(f"${{{name}}}", arns[value["Fn::GetAtt"][0]])
    client = boto3.client("stepfunctions")
    return client.create_state_machine(name=machine["StateMachineName"], definition=text, roleArn=role)[
        "stateMachineArn"
    ]
