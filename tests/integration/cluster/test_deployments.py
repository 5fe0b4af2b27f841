"""From a plan to an engine that answers, on a simulated Kubernetes API; and what is left when it fails: nothing."""

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from foundry_core import runs
from foundry_core.clock import fixed, now_ms
from foundry_core.runs import RunError
from foundry_local.kube import Fault, SimulatedCluster
from kubernetes import client as kubernetes

from functions.cluster.capacity import Reservation
from functions.cluster.errors import ClusterUnreachable
from functions.cluster.handler import task
from functions.cluster.services import deployments
from functions.cluster.store import clusters as store

Call = Callable[..., Any]
DEPLOYMENTS = "/projects/prj_1/deployments"


def namespaces(core: kubernetes.CoreV1Api) -> list[str]:
    found = [item.metadata.name for item in core.list_namespace().items if item.status.phase != "Terminating"]
    return [name for name in found if name.startswith("foundry-dep")]


def events(kind: str) -> list[dict[str, Any]]:
    items = boto3.resource("dynamodb").Table("foundry-test-cluster").scan()["Items"]
    found = [json.loads(str(item["event"])) for item in items if item["kind"] == "outbox"]
    return [event["data"] for event in found if event["type"] == f"foundry.{kind}.v1"]


def test_a_plan_becomes_an_engine_that_answers(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api
) -> None:
    answer = call("POST", DEPLOYMENTS, body)
    accepted = answer.ok(202)
    deployment = accepted["deployment"]
    assert answer.headers["location"] == f"{DEPLOYMENTS}/{deployment['id']}" and deployment["status"] == "pending"
    run = flow.drive(accepted["run"]["id"])
    assert run.status == "succeeded", run.error
    assert run.result == {"deployment_id": deployment["id"], "endpoint_id": "end_1", "endpoint_name": "llama"}
    found = call("GET", f"{DEPLOYMENTS}/{deployment['id']}").ok()
    assert (found["status"], found["endpoint_id"], found["error"]) == ("ready", "end_1", None)
    ready = flow.states["wait_ready"]["output"]
    assert ready["source"] == "twin" and ready["upstreams"][0].startswith("http://127.0.0.1:")
    admitted = flow.states["admit"]["output"]
    assert admitted["endpoint_name"] == "llama" and admitted["price"]["output_nanos_per_token"] > 0
    [announced] = events("deployment.ready")
    assert announced["plan"]["predicted"] == body["plan"]["predicted"] and announced["endpoint_name"] == "llama"
    [verified] = events("deployment.verified")
    assert verified["ttft_ms"] > 0 and verified["output_tokens"] > 0 and verified["source"] == "verification"
    delete(call, deployment["id"], flow, core)


def delete(call: Call, deployment_id: str, flow: Any, core: kubernetes.CoreV1Api) -> None:
    run = call("DELETE", f"{DEPLOYMENTS}/{deployment_id}").ok(202)["run"]
    assert call("GET", f"{DEPLOYMENTS}/{deployment_id}").ok()["status"] == "deleting"
    assert flow.drive(run["id"]).status == "succeeded"
    call("GET", f"{DEPLOYMENTS}/{deployment_id}").problem(404, "deployment_not_found")
    assert not namespaces(core)


def start(call: Call, body: dict[str, Any]) -> tuple[str, str]:
    """Ids of the deployment and its run."""
    accepted = call("POST", DEPLOYMENTS, body).ok(202)
    return accepted["deployment"]["id"], accepted["run"]["id"]


def assert_nothing_left(call: Call, deployment_id: str, cluster_id: str, core: kubernetes.CoreV1Api) -> None:
    assert not namespaces(core)
    assert call("GET", f"/clusters/{cluster_id}").ok()["gpus_reserved"] == 0
    found = call("GET", f"{DEPLOYMENTS}/{deployment_id}").ok()
    assert found["status"] == "failed" and found["endpoint_id"] is None and found["error"]["detail"]


@pytest.mark.parametrize(
    ("fault", "word"),
    [("image-pull", "ImagePull"), ("oom-killed", "OOMKilled"), ("crash-loop", "ended")],
)
def test_an_engine_that_cannot_start_is_taken_back(
    call: Call,
    body: dict[str, Any],
    flow: Any,
    core: kubernetes.CoreV1Api,
    simulated: SimulatedCluster,
    monkeypatch: pytest.MonkeyPatch,
    fault: Any,
    word: str,
) -> None:
    monkeypatch.setattr("functions.cluster.pods.IMAGE_GRACE_MS", 0)
    simulated.inject(Fault(fault))
    deployment_id, run_id = start(call, body)
    run = flow.drive(run_id)
    assert run.status == "failed" and run.error and run.error.code == "engine_failed" and word in run.error.detail
    assert run.step("wait_ready").status == "failed" and run.step("admit").status == "undone"
    assert_nothing_left(call, deployment_id, body["cluster_id"], core)
    [failed] = events("deployment.failed")
    assert failed["deployment_id"] == deployment_id and word in failed["error"]["detail"]


def test_a_failed_deployment_can_be_retried(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api, simulated: SimulatedCluster
) -> None:
    simulated.inject(Fault("oom-killed"))
    deployment_id, run_id = start(call, body)
    assert flow.drive(run_id).status == "failed"
    simulated.clear_faults()
    runs.retry(run_id)
    assert flow.drive(run_id).status == "succeeded"
    assert call("GET", f"{DEPLOYMENTS}/{deployment_id}").ok()["status"] == "ready"
    delete(call, deployment_id, flow, core)


def test_an_engine_that_never_gets_ready_is_given_up_by_count(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api, simulated: SimulatedCluster
) -> None:
    """The flow gives up after its polls; then the same compensation runs."""
    simulated.inject(Fault("never-ready"))
    deployment_id, run_id = start(call, body)
    run = runs.get(run_id)
    state: dict[str, Any] = {}
    for step in ("admit", "apply_manifests"):
        state[step] = {"output": flow.perform(run, step, state)}
    payload = {"task": "wait_ready", "step": "wait_ready", "run_id": run_id, "attempt": 1, "input": state}
    assert task(payload, flow.context)["status"] == "waiting"
    state["error"] = {"Error": "DeploymentTimeout", "Cause": "The engine did not become ready in time."}
    for step in ("undo_manifests", "mark_failed", "fail_run"):
        flow.perform(run, step, state)
    assert_nothing_left(call, deployment_id, body["cluster_id"], core)
    assert runs.get(run_id).error.detail == "The engine did not become ready in time."  # type: ignore[union-attr]


def test_no_node_for_a_pod_is_insufficient_capacity(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api
) -> None:
    """GPUs that somebody else uses are unknown to our reservations: the scheduler says so."""
    squat(core)
    deployment_id, run_id = start(call, body)
    flow.before["wait_ready"] = lambda: None
    run = runs.get(run_id)
    state: dict[str, Any] = {}
    for step in ("admit", "apply_manifests"):
        state[step] = {"output": flow.perform(run, step, state)}
    with fixed(now_ms() + 60_000):
        assert perform(flow, "wait_ready", run_id, state)["status"] == "waiting"  # an autoscaler may help
    with fixed(now_ms() + 600_000), pytest.raises(Exception, match="No node can take a pod") as caught:
        perform(flow, "wait_ready", run_id, state)
    assert type(caught.value).__name__ == "InsufficientCapacity"
    core.delete_namespace("squatter")
    for step in ("undo_manifests", "mark_failed", "fail_run"):
        flow.perform(run, step, {**state, "error": {"Error": "InsufficientCapacity", "Cause": "{}"}})
    assert_nothing_left(call, deployment_id, body["cluster_id"], core)


def perform(flow: Any, step: str, run_id: str, state: dict[str, Any]) -> Any:
    payload = {"task": step, "step": step, "run_id": run_id, "attempt": 1, "input": state}
    return task(payload, flow.context)


def squat(core: kubernetes.CoreV1Api) -> None:
    core.create_namespace({"metadata": {"name": "squatter"}})
    for number in range(2):
        container = {"name": "x", "image": "example.com/train:1",
                     "resources": {"limits": {"nvidia.com/gpu": "8"}}}  # fmt: skip
        spec = {"containers": [container], "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}}
        core.create_namespaced_pod("squatter", {"metadata": {"name": f"p{number}"}, "spec": spec})


@pytest.mark.parametrize("step", ["admit", "apply_manifests", "wait_ready", "verify", "mark_ready"])
def test_a_cancelled_deployment_is_taken_back(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api, step: str
) -> None:
    deployment_id, run_id = start(call, body)
    flow.before[step] = lambda: runs.cancel(run_id)
    run = flow.drive(run_id)
    assert run.status == "cancelled"
    assert_nothing_left(call, deployment_id, body["cluster_id"], core)
    assert call("GET", f"{DEPLOYMENTS}/{deployment_id}").ok()["error"]["code"] == "run_cancelled"


def test_a_name_taken_at_the_gateway_takes_everything_back(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api
) -> None:
    flow.app["publish_endpoint"] = type("NameTaken", (Exception,), {})("taken")
    deployment_id, run_id = start(call, body)
    assert flow.drive(run_id).status == "failed"
    assert_nothing_left(call, deployment_id, body["cluster_id"], core)


def test_a_manifest_that_the_cluster_rejects_takes_everything_back(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("functions.cluster.manifests.PORT", 123_456)
    deployment_id, run_id = start(call, body)
    run = flow.drive(run_id)
    assert run.error and run.error.code == "manifest_rejected" and "port" in run.error.detail.lower()
    assert_nothing_left(call, deployment_id, body["cluster_id"], core)


def test_tasks_may_run_twice(call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api) -> None:
    deployment_id, run_id = start(call, body)
    run, state = runs.get(run_id), dict[str, Any]()
    for step in ("admit", "apply_manifests"):
        first = flow.perform(run, step, state)
        forget(run_id, step)
        assert flow.perform(run, step, state) == first
    assert call("GET", f"/clusters/{body['cluster_id']}").ok()["gpus_reserved"] == body["plan"]["devices"]
    for _ in range(2):
        flow.perform(run, "undo_manifests", {"error": {}})
        flow.perform(run, "mark_failed", {"error": {"Error": "X", "Cause": "x"}})
    flow.perform(run, "fail_run", {"error": {"Error": "X", "Cause": "x"}})
    assert_nothing_left(call, deployment_id, body["cluster_id"], core)
    assert len(events("deployment.failed")) == 1


def forget(run_id: str, step: str) -> None:
    """Let a step look as if its answer had been lost."""
    from foundry_core.runs import StepStatus, store

    def change(run: Any) -> None:
        run.step(step).status, run.step(step).output = StepStatus.RUNNING, None

    store.update(run_id, change)


def test_capacity_is_promised_once(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api, plans: list[dict[str, Any]]
) -> None:
    """Two nodes of eight GPUs hold four replicas of four, not five."""
    plan = resized(next(plan for plan in plans if plan["tp"] == 4), replicas=3)
    _, run_id = start(call, {**body, "plan": plan})
    run, state = runs.get(run_id), dict[str, Any]()
    flow.perform(run, "admit", state)
    _, other = start(call, {**body, "name": "second", "plan": resized(plan, replicas=2)})
    failed = flow.drive(other)
    assert failed.error and failed.error.code == "insufficient_capacity"
    assert "4 of 16 GPUs on 2 ready node(s) are free" in failed.error.detail and failed.error.next_action
    assert call("GET", f"/clusters/{body['cluster_id']}").ok()["gpus_reserved"] == 12
    call("DELETE", f"/clusters/{body['cluster_id']}").problem(409, "cluster_in_use")
    flow.perform(run, "undo_manifests", {"error": {}})
    assert call("GET", f"/clusters/{body['cluster_id']}").ok()["gpus_reserved"] == 0


def resized(plan: dict[str, Any], replicas: int) -> dict[str, Any]:
    return {**plan, "replicas": replicas, "devices": replicas * plan["tp"] * plan["pp"] * plan["dp"]}


def test_two_deployments_that_reserve_at_once(call: Call, body: dict[str, Any]) -> None:
    """The slower one sees what the faster one took."""
    cluster_id, seen = body["cluster_id"], list[int]()

    def slow(held: Any) -> None:
        if not seen:
            store.reserve(cluster_id, lambda held: held.update(a=Reservation(group="g", pod_gpus=[8])))
        seen.append(len(held))
        held["b"] = Reservation(group="g", pod_gpus=[8])

    store.reserve(cluster_id, slow)
    assert seen == [0, 1] and call("GET", f"/clusters/{cluster_id}").ok()["gpus_reserved"] == 16


def test_a_namespace_that_is_not_ours_is_left_alone(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api
) -> None:
    deployment_id, run_id = start(call, body)
    name = f"foundry-{deployment_id.replace('_', '-')}"
    core.create_namespace({"metadata": {"name": name}})
    flow.perform(runs.get(run_id), "undo_manifests", {"error": {}})
    assert core.read_namespace(name).status.phase == "Active"
    core.delete_namespace(name)


def test_a_deployment_that_is_being_worked_on_is_busy(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api
) -> None:
    deployment_id, run_id = start(call, body)
    problem = call("DELETE", f"{DEPLOYMENTS}/{deployment_id}").problem(409, "deployment_busy")
    assert run_id in problem["detail"]
    flow.before["admit"] = lambda: runs.cancel(run_id)
    flow.drive(run_id)
    flow.before.clear()
    delete(call, deployment_id, flow, core)
    start(call, body)  # the name is free again


def test_removal_survives_the_loss_of_the_cluster_record(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api
) -> None:
    deployment_id, run_id = start(call, body)
    flow.before["admit"] = lambda: runs.cancel(run_id)
    flow.drive(run_id)
    flow.before.clear()
    assert call("DELETE", f"/clusters/{body['cluster_id']}").status == 204
    delete(call, deployment_id, flow, core)


def test_a_cluster_that_is_gone_for_good_is_abandoned(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment_id, run_id = start(call, body)
    assert flow.drive(run_id).status == "succeeded"
    path, cluster = f"{DEPLOYMENTS}/{deployment_id}", f"/clusters/{body['cluster_id']}"

    def gone(*_: Any, **__: Any) -> None:
        raise ClusterUnreachable("The Kubernetes API cannot be reached.")

    with monkeypatch.context() as dead:
        dead.setattr("functions.cluster.kube.Kube._call", gone)
        run = flow.drive(call("DELETE", path).ok(202)["run"]["id"])
        assert run.step("drain").status == "succeeded" and run.step("remove_manifests").status == "failed"
        call("DELETE", cluster, abandon="no").problem(409, "cluster_in_use")
        call("DELETE", cluster, None, "developer", abandon="true").problem(403, "forbidden")
        assert call("DELETE", cluster, None, "operator", abandon="true").status == 204
        assert flow.drive(call("DELETE", path).ok(202)["run"]["id"]).status == "succeeded"
    call("GET", path).problem(404, "deployment_not_found")
    core.delete_namespace(f"foundry-{deployment_id.replace('_', '-')}")


def test_another_cluster_cannot_take_the_place_of_one_that_holds_deployments(
    call: Call, body: dict[str, Any], flow: Any, simulated: SimulatedCluster
) -> None:
    _, run_id = start(call, body)
    flow.perform(runs.get(run_id), "admit", {})
    path, same = f"/clusters/{body['cluster_id']}", simulated.kubeconfig_yaml()
    other = same.replace("127.0.0.1", "127.0.0.2")
    call("PATCH", path, {"kubeconfig": other}).problem(409, "cluster_in_use")
    assert call("GET", path).ok()["status"] == "ready"
    assert call("PATCH", path, {"kubeconfig": same}).ok()["status"] == "registering"


def test_administrators_tidy_up_after_a_project_that_is_gone(call: Call, body: dict[str, Any], flow: Any) -> None:
    deployment_id, run_id = start(call, body)
    flow.before["admit"] = lambda: runs.cancel(run_id)
    flow.drive(run_id)
    flow.before.clear()
    key = {"pk": "PROJECT#prj_1", "sk": "MEMBER#u-founder"}
    boto3.resource("dynamodb").Table("foundry-test-app").delete_item(Key=key)
    path = f"{DEPLOYMENTS}/{deployment_id}"
    call("GET", path, None, "developer").problem(404, "project_not_found")
    call("POST", DEPLOYMENTS, body).problem(404, "project_not_found")
    assert [one["id"] for one in call("GET", DEPLOYMENTS, None, "auditor").ok()["items"]] == [deployment_id]
    call("DELETE", path, None, "operator").problem(404, "project_not_found")
    removal = call("DELETE", path).ok(202)["run"]["id"]
    call("GET", f"/runs/{removal}").ok()
    assert flow.drive(removal).status == "succeeded"


def test_names_are_unique_over_all_projects(call: Call, body: dict[str, Any]) -> None:
    start(call, body)
    call("POST", "/projects/prj_2/deployments", body).problem(409, "name_taken")
    assert call("GET", "/projects/prj_2/deployments").ok()["items"] == []


def test_patch_respects_the_version(call: Call, body: dict[str, Any]) -> None:
    deployment_id, _ = start(call, body)
    path = f"{DEPLOYMENTS}/{deployment_id}"
    tag = call("GET", path).headers["etag"]
    assert call("GET", path, headers={"if-none-match": tag}).status == 304
    changed = call("PATCH", path, {"description": "demo"}, headers={"if-match": tag})
    assert changed.ok()["description"] == "demo" and changed.headers["etag"] != tag
    call("PATCH", path, {"description": "late"}, headers={"if-match": tag}).problem(412, "precondition_failed")
    call("PATCH", path, {"replicas": 3}).problem(422, "invalid_request")


def test_lists_show_the_projects_own(call: Call, body: dict[str, Any]) -> None:
    ids = [start(call, {**body, "name": f"d{number}"})[0] for number in range(3)]
    page = call("GET", DEPLOYMENTS, limit=2).ok()
    rest = call("GET", DEPLOYMENTS, limit=2, cursor=page["next_cursor"]).ok()
    assert [item["id"] for item in page["items"] + rest["items"]] == ids and rest["next_cursor"] is None
    call("GET", f"/projects/prj_2/deployments/{ids[0]}").problem(404, "deployment_not_found")


def test_a_strangers_and_a_viewers_request(call: Call, body: dict[str, Any], join: Callable[..., Any]) -> None:
    call("POST", DEPLOYMENTS, body, join("prj_9", "owner")).problem(404, "project_not_found")
    call("POST", DEPLOYMENTS, body, join("prj_1", "viewer")).problem(403, "forbidden")
    call("POST", DEPLOYMENTS, body, join("prj_1", "member")).ok(202)


def test_a_removal_outlives_a_cancel_and_a_late_failure(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api
) -> None:
    """A delete run that stops half way leaves the deployment deleting; the next one finishes it."""
    deployment_id, run_id = start(call, body)
    assert flow.drive(run_id).status == "succeeded"
    stopped = call("DELETE", f"{DEPLOYMENTS}/{deployment_id}").ok(202)["run"]["id"]
    flow.before["remove_manifests"] = lambda: runs.cancel(stopped)
    assert flow.drive(stopped).status == "cancelled"
    flow.before.clear()
    assert call("GET", f"{DEPLOYMENTS}/{deployment_id}").ok()["status"] == "deleting"
    deployments.mark_failed("prj_1", deployment_id, RunError(code="late", detail="late"))
    delete(call, deployment_id, flow, core)
    assert [event["deployment_id"] for event in events("deployment.deleted")] == [deployment_id]


def test_a_replayed_request_creates_one_deployment(call: Call, body: dict[str, Any]) -> None:
    headers = {"idempotency-key": "once"}
    first, again = (call("POST", DEPLOYMENTS, body, headers=headers).ok(202) for _ in range(2))
    assert first == again and len(call("GET", DEPLOYMENTS).ok()["items"]) == 1


def test_an_embedding_model(
    call: Call, body: dict[str, Any], flow: Any, core: kubernetes.CoreV1Api, simulated: SimulatedCluster
) -> None:
    """It is asked for a vector, not for a chat."""
    from functions.sim import service
    from functions.sim.schemas import SimulationCreate

    config = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 12,
              "num_attention_heads": 12, "intermediate_size": 1536, "vocab_size": 30522, "type_vocab_size": 2,
              "max_position_embeddings": 512, "torch_dtype": "float32"}  # fmt: skip
    model = {"id": "mdl_2", "name": "small", "config": config}
    request = SimulationCreate.model_validate({
        "model": model, "workload": {"input_tokens": 256, "output_tokens": 0, "concurrency": 8}, "engines": ["vllm"],
        "device_groups": [{"name": "l40s-x4", "device": "l40s", "nodes": 1, "devices_per_node": 4}],
    })  # fmt: skip
    plan = service.search(service.resolved(request)).plans[0].model_dump(mode="json")
    deployment_id, run_id = start(call, {**body, "model": model, "plan": plan, "name": "small"})
    run = flow.drive(run_id)
    assert run.status == "succeeded", run.error
    price = call("GET", f"{DEPLOYMENTS}/{deployment_id}").ok()["price"]
    assert price["output_nanos_per_token"] == 0 and price["input_nanos_per_token"] > 0
    delete(call, deployment_id, flow, core)


@pytest.mark.parametrize(
    ("url", "taken"),
    [("http://127.0.0.1:8000", True), ("http://[::1]:8000", True), ("http://169.254.169.254/latest", False),
     ("http://10.0.0.1:8000", False), ("http://[", False), ("", False)],
)  # fmt: skip
def test_a_cluster_sends_gateways_nowhere_but_to_their_own_machine(url: str, taken: bool) -> None:
    from functions.cluster.tasks.deployments import local_url

    service = {"metadata": {"annotations": {"foundry.dev/local-url": url}}}
    assert local_url(service) == (url if taken else None) and local_url({"metadata": {}}) is None
