"""A simulated Kubernetes API that the real client talks to, and a driver that runs a flow's tasks as its state machine
does: step by step, polling, compensating. (The state machines themselves have their own tests.)
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from foundry_core import aws, runs
from foundry_core.runs import Run
from foundry_core.settings import settings
from foundry_local.kube import ClusterThread, SimulatedCluster
from foundry_sim.search.plans import SimulationRequest
from foundry_sim.search.search import simulate
from kubernetes import client as kubernetes

from functions.cluster.handler import task

EXAMPLES = Path(__file__).parents[3] / "examples" / "models"
MODEL = {"id": "mdl_1", "name": "llama", "config": json.loads((EXAMPLES / "llama-3.1-8b-instruct.json").read_text())}
GROUPS = [{"name": "h100-sxm-x8", "device": "h100_sxm", "nodes": 2, "devices_per_node": 8}]


@pytest.fixture(scope="session")
def _simulated() -> Iterator[SimulatedCluster]:
    with ClusterThread(SimulatedCluster(speed=500.0)) as cluster:
        yield cluster


@pytest.fixture
def simulated(_simulated: SimulatedCluster) -> Iterator[SimulatedCluster]:
    yield _simulated
    _simulated.clear_faults()


@pytest.fixture
def core(simulated: SimulatedCluster) -> kubernetes.CoreV1Api:
    """A second client, to look at the cluster from the side."""
    configuration = kubernetes.Configuration()
    configuration.host = simulated.url
    configuration.api_key = {"authorization": f"Bearer {simulated.token}"}
    return kubernetes.CoreV1Api(kubernetes.ApiClient(configuration))


@pytest.fixture(autouse=True)
def secrets_key(aws_tables: None, monkeypatch: pytest.MonkeyPatch) -> None:
    key = aws.client("kms").create_key()["KeyMetadata"]["KeyId"]
    monkeypatch.setenv("SECRETS_KEY_ID", key)
    settings.cache_clear()


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Runs that were started; the driver executes them."""
    found: list[Run] = []
    monkeypatch.setattr("foundry_core.runs.service.start_execution", found.append)
    return found


FORWARD = {
    "register_cluster": ["connect", "discover_nodes", "install_addons", "addons_ready", "mark_ready"],
    "deploy_model": ["admit", "apply_manifests", "wait_ready", "verify", "publish_endpoint", "mark_ready"],
    "delete_deployment": ["unpublish_endpoint", "drain", "remove_manifests", "wait_removed", "mark_deleted"],
}
COMPENSATION = {
    "register_cluster": ["mark_failed"],
    "deploy_model": ["undo_manifests", "mark_failed"],
    "delete_deployment": [],
}
TASK_OF = {"undo_manifests": "remove_manifests"}


@dataclass
class Flow:
    """``drive(run)`` performs the tasks of the run's flow and returns the ended run."""

    context: Any
    app: dict[str, Any] = field(default_factory=lambda: {"publish_endpoint": {"endpoint_id": "end_1"}})
    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)

    def drive(self, run_id: str) -> Run:
        run = runs.get(run_id)
        state: dict[str, Any] = {"run_id": run.id, "attempt": run.attempt, "subject_id": run.subject_id}
        try:
            for step in FORWARD[run.kind]:
                self.before.get(step, lambda: None)()
                state[step] = {"output": self.perform(run, step, state)}
            self.perform(run, "finish_run", {**state, "result": state[FORWARD[run.kind][-1]]})
        except Exception as error:
            state["error"] = {"Error": type(error).__name__, "Cause": json.dumps({"errorMessage": str(error)})}
            for step in [*COMPENSATION[run.kind], "fail_run"]:
                self.perform(run, step, state)
        self.states = state
        return runs.get(run_id)

    def perform(self, run: Run, step: str, state: dict[str, Any]) -> Any:
        if step in {"publish_endpoint", "unpublish_endpoint"}:
            answer = self.app.get(step, {})
            if isinstance(answer, Exception):
                raise answer
            return answer
        payload = {"task": TASK_OF.get(step, step), "step": step, "run_id": run.id, "attempt": run.attempt,
                   "input": json.loads(json.dumps(state))}  # fmt: skip
        deadline = time.monotonic() + 20
        output = task(payload, self.context)
        while output.get("status") == "waiting" and time.monotonic() < deadline:
            time.sleep(0.02)
            output = task(payload, self.context)
        assert output.get("status") != "waiting", output
        return json.loads(json.dumps(output))


@pytest.fixture
def flow(lambda_context: SimpleNamespace) -> Flow:
    return Flow(lambda_context)


@pytest.fixture
def cluster(call: Callable[..., Any], simulated: SimulatedCluster, flow: Flow) -> dict[str, Any]:
    """A registered cluster."""
    body = {"name": "demo", "kind": "onprem", "kubeconfig": simulated.kubeconfig_yaml()}
    answer = call("POST", "/clusters", body).ok(202)
    assert flow.drive(answer["run"]["id"]).status == "succeeded"
    found: dict[str, Any] = call("GET", f"/clusters/{answer['cluster']['id']}").ok()
    return found


@pytest.fixture(scope="session")
def plans() -> list[dict[str, Any]]:
    """What a simulation of the example model on the demo's H100 nodes returns."""
    request = SimulationRequest.model_validate({
        "model": {**MODEL["config"], "_name_or_path": MODEL["name"]}, "device_groups": GROUPS,
        "engines": ["vllm", "sglang"],
        "service_levels": {"ttft_ms": 500, "tokens_per_second": 30},
        "workload": {"input_tokens": 1024, "output_tokens": 256, "concurrency": 64},
    })  # fmt: skip
    return [plan.model_dump(mode="json") for plan in simulate(request).plans]


@pytest.fixture
def body(cluster: dict[str, Any], plans: list[dict[str, Any]]) -> dict[str, Any]:
    """A deployment request."""
    return {"name": "llama", "cluster_id": cluster["id"], "model": MODEL, "plan": plans[0]}


@pytest.fixture
def model() -> dict[str, Any]:
    return MODEL
