"""The flows with the real task functions, the tables of the template, and a simulated Kubernetes cluster with engines.

Everything between the HTTP handler and the pods is the real thing; only Step Functions itself is moto's.
"""

import importlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from foundry_core import aws, runs
from foundry_core.clock import fixed, now_ms
from foundry_core.events import new_event
from foundry_core.settings import settings
from foundry_local.kube import ClusterThread, Fault, SimulatedCluster
from kubernetes import client as kubernetes

ROOT = Path(__file__).parents[3]
MODEL = {"id": "mdl_1", "name": "llama",
         "config": json.loads((ROOT / "examples" / "models" / "llama-3.1-8b-instruct.json").read_text())}  # fmt: skip
SIMULATION = {
    "model": MODEL, "service_levels": {"ttft_ms": 500, "tokens_per_second": 30},
    "device_groups": [{"name": "h100-sxm-x8", "device": "h100_sxm", "nodes": 2, "devices_per_node": 8}],
    "workload": {"input_tokens": 1024, "output_tokens": 256, "concurrency": 64},
}  # fmt: skip
_names = (f"demo-{number}" for number in itertools.count(1))
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def kube() -> Iterator[SimulatedCluster]:
    with ClusterThread(SimulatedCluster(speed=500.0)) as cluster:
        yield cluster


@pytest.fixture
def core(kube: SimulatedCluster) -> Iterator[kubernetes.CoreV1Api]:
    """A second client, to look at the cluster from the side."""
    configuration = kubernetes.Configuration()
    configuration.host = kube.url
    configuration.api_key = {"authorization": f"Bearer {kube.token}"}
    yield kubernetes.CoreV1Api(kubernetes.ApiClient(configuration))
    kube.clear_faults()


@pytest.fixture
def aws_tables(_machines: Any, templates: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tables as the template has them, a key, a bus, and what the functions know of the state machines."""
    tables = [r["Properties"] for r in templates["data"]["Resources"].values() if r["Type"] == "AWS::DynamoDB::Table"]
    for table in tables:
        shape = {name: table[name] for name in ("TableName", "KeySchema", "AttributeDefinitions", "BillingMode")}
        aws.client("dynamodb").create_table(**shape, GlobalSecondaryIndexes=table["GlobalSecondaryIndexes"])
    monkeypatch.setenv("SECRETS_KEY_ID", aws.client("kms").create_key()["KeyMetadata"]["KeyId"])
    for kind, arn in _machines.arns.items():
        monkeypatch.setenv(f"{kind.upper()}_ARN", arn)
    settings.cache_clear()
    yield
    for table in tables:
        aws.client("dynamodb").delete_table(TableName=table["TableName"])
    settings.cache_clear()


@pytest.fixture
def before(
    machines: Any, aws_tables: None, lambda_context: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Callable[[str], None]]:
    """The real task functions. ``before[step] = f`` calls ``f(run id)`` once, before that step is performed."""
    hooks: dict[str, Callable[[str], None]] = {}

    def perform(domain: str, payload: dict[str, Any]) -> Any:
        hook = hooks.pop(payload["step"], None)
        if hook:
            hook(payload["run_id"])
        if payload["input"].get("poll", {}).get("count"):
            time.sleep(0.02)  # the engine starts in real time, if five hundred times faster than usual
        return importlib.import_module(f"functions.{domain}.handler").task(payload, lambda_context)

    machines.handler = perform
    monkeypatch.setattr("functions.cluster.tasks.removal.time", SimpleNamespace(sleep=lambda seconds: None))
    return hooks


@pytest.fixture
def cluster(call: Call, before: Any, machines: Any, kube: SimulatedCluster) -> dict[str, Any]:
    body = {"name": next(_names), "kind": "onprem", "kubeconfig": kube.kubeconfig_yaml()}
    answer = call("POST", "/clusters", body).ok(202)
    machines.finish()
    assert runs.get(answer["run"]["id"]).status == "succeeded"
    found: dict[str, Any] = call("GET", f"/clusters/{answer['cluster']['id']}").ok()
    return found


@pytest.fixture
def project(call: Call, before: Any) -> str:
    return str(call("POST", "/projects", {"name": next(_names)}).ok(201)["id"])


@pytest.fixture
def plan(call: Call, machines: Any, project: str) -> dict[str, Any]:
    simulation = call("POST", f"/projects/{project}/simulations", SIMULATION).ok(202)["simulation"]
    machines.finish()
    found: list[dict[str, Any]] = call("GET", f"/projects/{project}/simulations/{simulation['id']}/plans").ok()["items"]
    return found[0]


@pytest.fixture
def deploy(call: Call, machines: Any, project: str, cluster: dict[str, Any], plan: dict[str, Any]) -> Callable[[], Any]:
    """Ask for a deployment and let its flow end. → (run, deployment id)"""

    def ask() -> tuple[Any, str]:
        body = {"name": "llama", "cluster_id": cluster["id"], "model": MODEL, "plan": plan}
        accepted = call("POST", f"/projects/{project}/deployments", body).ok(202)
        machines.finish()
        return runs.get(accepted["run"]["id"]), accepted["deployment"]["id"]

    return ask


def namespaces(core: kubernetes.CoreV1Api) -> list[str]:
    found = [item.metadata.name for item in core.list_namespace().items if item.status.phase != "Terminating"]
    return [name for name in found if name.startswith("foundry-dep")]


def endpoints(call: Call, project: str) -> list[str]:
    return [endpoint["name"] for endpoint in call("GET", f"/projects/{project}/endpoints").ok()["items"]]


def state_of(run: Any, machines: Any, attempt: int | None = None) -> str:
    arn = machines.arns[run.kind].replace(":stateMachine:", ":execution:") + f":{run.id}-{attempt or run.attempt}"
    return str(boto3.client("stepfunctions").describe_execution(executionArn=arn)["status"])


def test_simulate(call: Call, project: str, plan: dict[str, Any]) -> None:
    [run] = call("GET", "/runs", project_id=project).ok()["items"]
    assert (run["kind"], run["status"]) == ("simulate", "succeeded")
    assert [step["status"] for step in run["steps"]] == ["succeeded"] * 3
    assert plan["meets_service_levels"] and plan["predicted"]["ttft_ms"]["mean"] <= 500


def unreachable(kube: SimulatedCluster) -> str:
    return kube.kubeconfig_yaml().replace(str(kube.url), "http://127.0.0.1:9")


def test_recommend(call: Call, cluster: dict[str, Any], before: Any, machines: Any, kube: SimulatedCluster) -> None:
    """A cluster with three device groups, one that is out of reach, and more models than a page holds."""
    for source in ("Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B", "BAAI/bge-m3", "meta-llama/Llama-3.1-8B-Instruct"):
        call("POST", "/models", {"name": source.split("/")[1].lower().replace(".", "-"), "source": source}).ok(201)
    body = {"name": (name := next(_names)), "kind": "onprem", "kubeconfig": unreachable(kube)}
    call("POST", "/clusters", body).ok(202)
    machines.finish()
    run = call("POST", "/simulator/recommendations").ok(202)["run"]
    machines.finish()
    ended = runs.get(run["id"])
    assert (ended.status, ended.result and ended.result["models"]) == ("succeeded", 4), ended.error
    assert [one["name"] for one in (ended.result or {})["left_out"]] == [name]
    found = call("GET", "/simulator/recommendations").ok()["items"]
    assert {item["model_name"]: item["workload_class"] for item in found}["bge-m3"] == "embedding"
    assert len(found) == 4 and {choice["cluster_name"] for item in found for choice in item["choices"]} == {
        cluster["name"]
    }
    assert all(item["choices"][0]["plan"]["meets_service_levels"] for item in found)


def delete(call: Call, project: str, deployment: str, machines: Any) -> Any:
    run = call("DELETE", f"/projects/{project}/deployments/{deployment}").ok(202)["run"]
    machines.finish()
    return runs.get(run["id"])


def assert_nothing_left(call: Call, project: str, cluster: dict[str, Any], core: kubernetes.CoreV1Api) -> None:
    assert namespaces(core) == [] and endpoints(call, project) == []
    assert call("GET", f"/clusters/{cluster['id']}").ok()["gpus_reserved"] == 0


def test_deploy_and_delete(call: Call, project: str, deploy: Any, core: Any, machines: Any, cluster: Any) -> None:
    run, deployment = deploy()
    assert run.status == "succeeded", run.error
    assert state_of(run, machines) == "SUCCEEDED"
    assert endpoints(call, project) == ["llama"] and len(namespaces(core)) == 1
    assert delete(call, project, deployment, machines).status == "succeeded"
    assert_nothing_left(call, project, cluster, core)


def rest(call: Call, project: str, deployment: str, machines: Any, what: str) -> Any:
    """Let it ``sleep`` or ``wake`` to the end of the flow."""
    run = call("POST", f"/projects/{project}/deployments/{deployment}/{what}").ok(202)["run"]
    machines.finish()
    return runs.get(run["id"])


def shown(call: Call, project: str, deployment: str) -> dict[str, Any]:
    found: dict[str, Any] = call("GET", f"/projects/{project}/deployments/{deployment}").ok()
    return found


def pods(core: kubernetes.CoreV1Api) -> int:
    [namespace] = namespaces(core)
    return sum(pod.metadata.deletion_timestamp is None for pod in core.list_namespaced_pod(namespace).items)


def reserved(call: Call, cluster: dict[str, Any]) -> int:
    return int(call("GET", f"/clusters/{cluster['id']}").ok()["gpus_reserved"])


def asleep_to_gateways() -> list[bool]:
    from functions.app.services import snapshot

    document = json.loads(snapshot.current().document)
    return [backend["asleep"] for endpoint in document["endpoints"] for tier in endpoint["tiers"] for backend in tier]


def order_to_wake(project: str, deployment: str, context: Any) -> list[Any]:
    """What a gateway's order comes to the cluster domain as. → Messages that are to be delivered again."""
    handler = importlib.import_module("functions.cluster.handler")
    data = {"project_id": project, "deployment_id": deployment}
    event = new_event("foundry.deployment.wake_wanted.v1", source="app", subject=deployment, data=data)
    body = json.dumps({"detail": event.model_dump()})
    answer = handler.on_event({"Records": [{"messageId": "m-1", "eventSource": "aws:sqs", "body": body}]}, context)
    return list(answer["batchItemFailures"])


def idle(project: str, deployment: str, context: Any, as_of_ms: int) -> list[Any]:
    """What the metrics domain's finding comes to the cluster domain as, late or again. → As ``order_to_wake``."""
    handler = importlib.import_module("functions.cluster.handler")
    data = {"project_id": project, "deployment_id": deployment, "as_of_ms": as_of_ms}
    event = new_event("foundry.deployment.idle.v1", source="metrics", subject=deployment, data=data)
    body = json.dumps({"detail": event.model_dump()})
    answer = handler.on_event({"Records": [{"messageId": "m-1", "eventSource": "aws:sqs", "body": body}]}, context)
    return list(answer["batchItemFailures"])


def wake_ups(call: Call, project: str) -> int:
    return sum(run["kind"] == "wake_deployment" for run in call("GET", "/runs", project_id=project).ok()["items"])


def test_sleep_and_wake(call: Call, project: str, deploy: Any, core: Any, machines: Any, cluster: Any) -> None:
    _, deployment = deploy()
    replicas, gpus = pods(core), reserved(call, cluster)
    run = rest(call, project, deployment, machines, "sleep")
    assert run.status == "succeeded", run.error
    assert (shown(call, project, deployment)["status"], asleep_to_gateways(), pods(core)) == ("asleep", [True], 0)
    assert reserved(call, cluster) == 0
    call("DELETE", f"/clusters/{cluster['id']}").problem(409, "cluster_in_use")
    call("POST", f"/projects/{project}/deployments/{deployment}/sleep").problem(409, "deployment_state")
    run = rest(call, project, deployment, machines, "wake")
    assert run.status == "succeeded", run.error
    assert (shown(call, project, deployment)["status"], asleep_to_gateways()) == ("ready", [False])
    assert (pods(core), reserved(call, cluster)) == (replicas, gpus)
    call("POST", f"/projects/{project}/deployments/{deployment}/wake").problem(409, "deployment_state")
    assert delete(call, project, deployment, machines).status == "succeeded"


def test_orders_to_wake_are_one_wake_up(
    call: Call, project: str, deploy: Any, machines: Any, lambda_context: Any, before: Any
) -> None:
    _, deployment = deploy()
    refused: list[Any] = []
    before["drain"] = lambda _: refused.extend(order_to_wake(project, deployment, lambda_context))
    rest(call, project, deployment, machines, "sleep")
    assert refused == [{"itemIdentifier": "m-1"}]  # delivered again, once it sleeps
    assert [order_to_wake(project, deployment, lambda_context) for _ in range(3)] == [[], [], []]
    machines.finish()
    assert order_to_wake(project, deployment, lambda_context) == [] and machines.pending == []
    assert order_to_wake(project, "dep_gone", lambda_context) == []
    assert (shown(call, project, deployment)["status"], wake_ups(call, project)) == ("ready", 1)
    assert delete(call, project, deployment, machines).status == "succeeded"


def test_what_cannot_be_woken_stays_asleep_and_says_why(
    call: Call,
    project: str,
    deploy: Any,
    core: Any,
    machines: Any,
    cluster: Any,
    kube: SimulatedCluster,
    lambda_context: Any,
) -> None:
    _, deployment = deploy()
    rest(call, project, deployment, machines, "sleep")
    kube.inject(Fault("oom-killed"))
    run = rest(call, project, deployment, machines, "wake")
    found = shown(call, project, deployment)
    assert (run.status, found["status"], found["error"]["code"]) == ("failed", "asleep", "engine_failed")
    assert "OOMKilled" in found["error"]["detail"]
    assert (asleep_to_gateways(), pods(core), reserved(call, cluster)) == ([True], 0, 0)
    kube.clear_faults()
    assert order_to_wake(project, deployment, lambda_context) == [] and machines.pending == []
    with fixed(now_ms() + 61_000):
        assert order_to_wake(project, deployment, lambda_context) == []
    machines.finish()
    assert (shown(call, project, deployment)["status"], wake_ups(call, project)) == ("ready", 2)
    assert shown(call, project, deployment)["error"] is None
    call("POST", f"/runs/{run.id}/retry").ok(202)
    machines.finish()
    assert runs.get(run.id).error.code == "run_superseded"
    assert (shown(call, project, deployment)["status"], asleep_to_gateways()) == ("ready", [False])
    assert delete(call, project, deployment, machines).status == "succeeded"


def test_a_sleep_that_was_stopped_is_woken_from_and_its_run_changes_nothing_later(
    call: Call, project: str, deploy: Any, machines: Any, before: Any, lambda_context: Any
) -> None:
    _, deployment = deploy()
    before["scale_down"] = lambda run_id: call("POST", f"/runs/{run_id}/cancel").ok(202)
    run = rest(call, project, deployment, machines, "sleep")
    found = shown(call, project, deployment)
    assert (run.status, found["status"], found["error"]["code"]) == ("cancelled", "sleeping", "run_cancelled")
    assert order_to_wake(project, deployment, lambda_context) == []
    machines.finish()
    assert (shown(call, project, deployment)["status"], asleep_to_gateways()) == ("ready", [False])
    call("POST", f"/runs/{run.id}/retry").ok(202)
    machines.finish()
    assert (runs.get(run.id).status, asleep_to_gateways()) == ("failed", [False])
    assert delete(call, project, deployment, machines).status == "succeeded"


def test_an_idle_deployment_falls_asleep_once(
    call: Call, project: str, deploy: Any, machines: Any, lambda_context: Any
) -> None:
    _, deployment = deploy()
    assert idle(project, deployment, lambda_context, now_ms() - 301_000) == []  # too late to be true
    assert idle(project, "dep_gone", lambda_context, now_ms()) == []
    assert machines.pending == []
    assert [idle(project, deployment, lambda_context, now_ms()) for _ in range(2)] == [[], []]
    machines.finish()
    assert idle(project, deployment, lambda_context, now_ms()) == []
    assert machines.pending == [] and asleep_to_gateways() == [True]
    [run] = [r for r in call("GET", "/runs", project_id=project).ok()["items"] if r["kind"] == "sleep_deployment"]
    assert (run["status"], run["created_by"]) == ("succeeded", "schedule")
    assert delete(call, project, deployment, machines).status == "succeeded"


def test_an_idle_deployment_whose_run_was_not_made_is_put_to_sleep_by_the_next_delivery(
    call: Call, project: str, deploy: Any, machines: Any, lambda_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be going to sleep for ever, and all else would wait for that."""
    _, deployment = deploy()

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("the table of runs is away")

    with monkeypatch.context() as broken:
        broken.setattr("foundry_core.runs.create", away)
        assert idle(project, deployment, lambda_context, now_ms()) == [{"itemIdentifier": "m-1"}]
    assert (shown(call, project, deployment)["status"], machines.pending) == ("sleeping", [])
    assert idle(project, deployment, lambda_context, now_ms()) == []
    machines.finish()
    assert (shown(call, project, deployment)["status"], asleep_to_gateways()) == ("asleep", [True])
    assert delete(call, project, deployment, machines).status == "succeeded"


def test_a_sleeping_deployment_can_be_deleted(
    call: Call, project: str, deploy: Any, core: Any, machines: Any, cluster: Any
) -> None:
    _, deployment = deploy()
    rest(call, project, deployment, machines, "sleep")
    assert delete(call, project, deployment, machines).status == "succeeded"
    assert_nothing_left(call, project, cluster, core)


def test_a_failed_deploy_leaves_nothing_and_says_why_and_can_be_retried(
    call: Call, project: str, deploy: Any, core: Any, machines: Any, cluster: Any, kube: SimulatedCluster
) -> None:
    kube.inject(Fault("oom-killed"))
    run, deployment = deploy()
    assert (run.status, run.error.code) == ("failed", "engine_failed") and "OOMKilled" in run.error.detail
    assert state_of(run, machines) == "FAILED"
    assert_nothing_left(call, project, cluster, core)
    kube.clear_faults()
    call("POST", f"/runs/{run.id}/retry").ok(202)
    machines.finish()
    run = runs.get(run.id)
    assert (run.status, run.attempt) == ("succeeded", 2), run.error
    assert endpoints(call, project) == ["llama"]
    assert delete(call, project, deployment, machines).status == "succeeded"


@pytest.mark.parametrize("step", ["apply_manifests", "mark_ready"])
def test_cancel_takes_back_what_was_done(
    call: Call, project: str, deploy: Any, core: Any, cluster: Any, before: Any, step: str
) -> None:
    before[step] = lambda run_id: call("POST", f"/runs/{run_id}/cancel").ok(202)
    run, _ = deploy()
    assert run.status == "cancelled"
    assert_nothing_left(call, project, cluster, core)


def test_a_superseded_execution_stops_and_the_next_attempt_finishes(
    call: Call, project: str, deploy: Any, core: Any, cluster: Any, before: Any, machines: Any
) -> None:
    def lose(run_id: str) -> None:  # what the platform does with an execution that it lost in a restart
        runs.restart(run_id)
        machines.finish()

    before["verify"] = lose
    run, deployment = deploy()
    assert (run.status, run.attempt) == ("succeeded", 2)
    assert state_of(run, machines) == "SUCCEEDED" and state_of(run, machines, attempt=1) == "FAILED"
    assert endpoints(call, project) == ["llama"] and len(namespaces(core)) == 1
    assert delete(call, project, deployment, machines).status == "succeeded"


def test_a_second_start_of_the_same_attempt_does_nothing(project: str, deploy: Any, machines: Any, call: Call) -> None:
    run, deployment = deploy()
    runs.service.start_execution(run)
    assert machines.pending == []
    assert delete(call, project, deployment, machines).status == "succeeded"


def test_an_unreachable_cluster_is_registered_as_failed(
    call: Call, before: Any, machines: Any, kube: SimulatedCluster
) -> None:
    body = {"name": next(_names), "kind": "onprem", "kubeconfig": unreachable(kube)}
    answer = call("POST", "/clusters", body).ok(202)
    machines.finish()
    run = runs.get(answer["run"]["id"])
    assert (run.status, run.error.code) == ("failed", "cluster_unreachable")
    assert call("GET", f"/clusters/{answer['cluster']['id']}").ok()["status"] == "failed"


def test_an_infeasible_simulation_succeeds(call: Call, project: str, machines: Any) -> None:
    wish = {**SIMULATION, "service_levels": {"ttft_ms": 1, "tokens_per_second": 30}}
    simulation = call("POST", f"/projects/{project}/simulations", wish).ok(202)
    machines.finish()
    assert runs.get(simulation["run"]["id"]).status == "succeeded"
    found = call("GET", f"/projects/{project}/simulations/{simulation['simulation']['id']}").ok()
    assert found["outcome"]["feasible"] is False
