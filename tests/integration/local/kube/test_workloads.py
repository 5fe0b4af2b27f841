"""Deployments, pods, services and jobs from manifest to answering engine, and what goes wrong on the way."""

import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from foundry_local.kube import ClusterThread, Fault, SimulatedCluster
from kubernetes import client
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException

pytestmark = pytest.mark.usefixtures("clear_faults")


@pytest.fixture
def inject(thread: ClusterThread) -> Callable[[Fault], None]:
    def put(fault: Fault) -> None:
        async def inside() -> None:
            thread.cluster.inject(fault)

        thread.call(inside())

    return put


@pytest.fixture
def pods(core: client.CoreV1Api, namespace: str) -> Callable[..., list[Any]]:
    def found(selector: str = "") -> list[Any]:
        items = core.list_namespaced_pod(namespace, label_selector=selector).items
        return [item for item in items if item.metadata.deletion_timestamp is None]

    return found


def is_ready(pod: Any) -> bool:
    return any(item.type == "Ready" and item.status == "True" for item in pod.status.conditions or [])


def waiting_reason(pod: Any) -> str | None:
    statuses = pod.status.container_statuses or []
    return statuses[0].state.waiting.reason if statuses and statuses[0].state.waiting else None


def service(name: str, namespace: str) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def local_url(core: client.CoreV1Api, namespace: str) -> str | None:
    notes = core.read_namespaced_service("llm", namespace).metadata.annotations or {}
    return notes.get("foundry.dev/local-url")


def reasons(core: client.CoreV1Api, namespace: str) -> set[str]:
    return {event.reason for event in core.list_namespaced_event(namespace).items}


def test_from_manifest_to_answer(
    core: client.CoreV1Api, apps: client.AppsV1Api, namespace: str, deployment: Any, eventually: Any, pods: Any
) -> None:
    apps.create_namespaced_deployment(namespace, deployment("llm", namespace, replicas=2))
    core.create_namespaced_service(namespace, service("llm", namespace))
    eventually(lambda: apps.read_namespaced_deployment("llm", namespace).status.ready_replicas == 2)
    found = apps.read_namespaced_deployment("llm", namespace)
    assert {item.type: item.status for item in found.status.conditions} == {"Available": "True", "Progressing": "True"}
    assert found.status.observed_generation == 1 and found.status.unavailable_replicas is None
    for pod in pods():
        assert pod.status.phase == "Running" and pod.spec.node_name and pod.status.pod_ip.startswith("10.244.")
        assert httpx.get(pod.metadata.annotations["foundry.dev/local-url"] + "/health").status_code == 200
    subset = eventually(lambda: core.read_namespaced_endpoints("llm", namespace).subsets)[0]
    assert len(subset.addresses) == 2 and subset.ports[0].port == 8000
    url = eventually(lambda: local_url(core, namespace))
    body = {"model": "meta/llama", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    response = httpx.post(url + "/v1/chat/completions", json=body)
    assert response.headers["x-foundry-source"] == "twin" and response.json()["usage"]["completion_tokens"] == 3
    assert {"Scheduled", "Pulled", "Started", "ScalingReplicaSet", "SuccessfulCreate"} <= reasons(core, namespace)


def test_a_service_balances_connections(
    core: client.CoreV1Api, apps: client.AppsV1Api, cluster: SimulatedCluster, namespace: str, deployment: Any,
    eventually: Any, pods: Any,
) -> None:  # fmt: skip
    apps.create_namespaced_deployment(namespace, deployment("llm", namespace, replicas=2))
    core.create_namespaced_service(namespace, service("llm", namespace))
    eventually(lambda: sum(is_ready(pod) for pod in pods()) == 2)
    url = eventually(lambda: local_url(core, namespace))
    body = {"model": "meta/llama", "prompt": "x", "max_tokens": 1}
    for _ in range(6):
        assert httpx.post(url + "/v1/completions", json=body).status_code == 200
    with httpx.Client() as kept:
        kept.get(url + "/health")
        connections = [item for worker in cluster.kubelet.workers.values() if worker.namespace == namespace
                       and worker.twin for item in worker.twin.http._state.connections]  # fmt: skip
        sockets = [item.transport.get_extra_info("socket") for item in connections]
        assert sockets and all(item.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for item in sockets)
    counts = [worker.twin.engine.metrics.generation_tokens for worker in cluster.kubelet.workers.values()
              if worker.namespace == namespace and worker.twin]  # fmt: skip
    assert sorted(counts) == [3, 3]


def test_the_api_server_proxies_to_a_service(
    core: client.CoreV1Api, apps: client.AppsV1Api, cluster: SimulatedCluster, namespace: str, deployment: Any,
    eventually: Any,
) -> None:  # fmt: skip
    base = f"{cluster.url}/api/v1/namespaces/{namespace}/services/llm:http/proxy"
    with httpx.Client(headers={"authorization": f"Bearer {cluster.token}"}, timeout=20) as http:
        core.create_namespaced_service(namespace, service("llm", namespace))
        assert http.get(base + "/health").status_code == 503, "no endpoints yet"
        apps.create_namespaced_deployment(namespace, deployment("llm", namespace))
        eventually(lambda: http.get(base + "/health").status_code == 200)
        assert http.get(base + "/v1/models").json()["data"][0]["id"] == "meta/llama"
        body = {"model": "meta/llama", "prompt": "x", "max_tokens": 5, "stream": True}
        with http.stream("POST", base + "/v1/completions", json=body) as response:
            lines = [line for line in response.iter_lines() if line]
        assert len(lines) == 6 and lines[-1] == "data: [DONE]"
        assert http.get(base.replace("llm", "other") + "/health").status_code == 404


def test_logs(
    core: client.CoreV1Api, apps: client.AppsV1Api, namespace: str, deployment: Any, eventually: Any, pods: Any
) -> None:
    apps.create_namespaced_deployment(namespace, deployment("llm", namespace, args=["--enable-lora"]))
    eventually(lambda: any(is_ready(pod) for pod in pods()))
    name = pods()[0].metadata.name
    response = core.read_namespaced_pod_log(name, namespace, _preload_content=False)
    text = response.data.decode()
    assert "model=meta/llama" in text and "GPU KV cache size: 64,000 tokens" in text
    assert "the twin ignores --enable-lora" in text
    last = core.read_namespaced_pod_log(name, namespace, tail_lines=1, timestamps=True, _preload_content=False)
    assert last.data.decode().count("\n") == 1 and last.data.decode().startswith("20")


def test_deleting_a_deployment_takes_everything_it_made(
    apps: client.AppsV1Api, namespace: str, deployment: Any, eventually: Any, pods: Any
) -> None:
    apps.create_namespaced_deployment(namespace, deployment("llm", namespace))
    eventually(lambda: any(is_ready(pod) for pod in pods()))
    url = pods()[0].metadata.annotations["foundry.dev/local-url"]
    apps.delete_namespaced_deployment("llm", namespace)
    eventually(lambda: not pods() and not apps.list_namespaced_replica_set(namespace).items)
    with pytest.raises(httpx.TransportError):
        httpx.get(url + "/health")


def test_rolling_update_keeps_serving_and_undo_reuses_the_old_set(
    apps: client.AppsV1Api, namespace: str, deployment: Any, eventually: Any, pods: Any
) -> None:
    body = deployment(
        "llm", namespace, replicas=3, spec={"strategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}
    )
    apps.create_namespaced_deployment(namespace, body)
    eventually(lambda: sum(is_ready(pod) for pod in pods()) == 3)
    first = pods()[0].metadata.labels["pod-template-hash"]
    change = {
        "spec": {
            "template": {"spec": {"containers": [{"name": "engine", "args": ["--model", "meta/llama", "--seed", "2"]}]}}
        }
    }
    apps.patch_namespaced_deployment("llm", namespace, change)
    least = []

    def rolled() -> bool:
        current = pods()
        least.append(sum(is_ready(pod) for pod in current))
        hashes = {pod.metadata.labels["pod-template-hash"] for pod in current}
        return first not in hashes and sum(is_ready(pod) for pod in current) == 3

    eventually(rolled)
    assert min(least) >= 2, "never more than one pod away"
    eventually(lambda: apps.read_namespaced_deployment("llm", namespace).status.updated_replicas == 3)
    assert (
        apps.read_namespaced_deployment("llm", namespace).metadata.annotations["deployment.kubernetes.io/revision"]
        == "2"
    )
    apps.patch_namespaced_deployment("llm", namespace, {"spec": body["spec"]})
    eventually(lambda: {pod.metadata.labels["pod-template-hash"] for pod in pods()} == {first})
    assert len(apps.list_namespaced_replica_set(namespace).items) == 2


def test_pods_that_fit_nowhere_wait_and_go_when_there_is_room(
    core: client.CoreV1Api, apps: client.AppsV1Api, namespace: str, deployment: Any, eventually: Any, pods: Any
) -> None:
    selector = {"nvidia.com/gpu.product": "NVIDIA-L40S"}
    apps.create_namespaced_deployment(namespace, deployment("first", namespace, gpus=4, nodeSelector=selector))
    eventually(lambda: any(is_ready(pod) for pod in pods("app=first")))
    apps.create_namespaced_deployment(namespace, deployment("second", namespace, gpus=2, nodeSelector=selector))
    eventually(lambda: "FailedScheduling" in reasons(core, namespace))
    waiting = pods("app=second")[0]
    assert waiting.status.phase == "Pending" and waiting.spec.node_name is None
    assert "1 Insufficient nvidia.com/gpu" in waiting.status.conditions[0].message
    apps.delete_namespaced_deployment("first", namespace)
    eventually(lambda: is_ready(pods("app=second")[0]))


def test_missing_secret_key_holds_the_container(
    core: client.CoreV1Api, apps: client.AppsV1Api, namespace: str, deployment: Any, eventually: Any, pods: Any
) -> None:
    reference = {"secretKeyRef": {"name": "hub", "key": "token"}}
    body = deployment("llm", namespace, container={"env": [{"name": "VLLM_API_KEY", "valueFrom": reference}]})
    apps.create_namespaced_deployment(namespace, body)
    eventually(lambda: pods() and waiting_reason(pods()[0]) == "CreateContainerConfigError")
    core.create_namespaced_secret(namespace, {"metadata": {"name": "hub"}, "stringData": {"token": "sesame"}})
    eventually(lambda: is_ready(pods()[0]))
    url = pods()[0].metadata.annotations["foundry.dev/local-url"]
    assert httpx.get(url + "/v1/models").status_code == 401
    assert httpx.get(url + "/v1/models", headers={"authorization": "Bearer sesame"}).status_code == 200


def test_a_probe_on_the_wrong_port_never_succeeds(
    core: client.CoreV1Api, apps: client.AppsV1Api, namespace: str, deployment: Any, eventually: Any, pods: Any
) -> None:
    apps.create_namespaced_deployment(namespace, deployment("llm", namespace, args=["--port", "9000"]))
    eventually(lambda: "Unhealthy" in reasons(core, namespace))
    assert not is_ready(pods()[0]) and pods()[0].status.phase == "Running"


def test_an_engine_that_does_not_fit_crashes_in_a_loop_and_says_why(
    core: client.CoreV1Api, apps: client.AppsV1Api, namespace: str, deployment: Any, eventually: Any, pods: Any
) -> None:
    apps.create_namespaced_deployment(namespace, deployment("llm", namespace, model="too-large"))
    pod = eventually(lambda: next((p for p in pods() if waiting_reason(p) == "CrashLoopBackOff"), None))
    ended = pod.status.container_statuses[0].last_state.terminated
    assert (ended.exit_code, ended.reason) == (1, "Error") and "CUDA out of memory" in ended.message
    text = core.read_namespaced_pod_log(pod.metadata.name, namespace, previous=True, _preload_content=False).data
    assert b"torch.OutOfMemoryError" in text


def test_tensor_parallel_beyond_the_devices_crashes(
    apps: client.AppsV1Api, namespace: str, deployment: Any, eventually: Any, pods: Any
) -> None:
    apps.create_namespaced_deployment(namespace, deployment("llm", namespace, gpus=2, args=["-tp", "4"]))
    pod = eventually(lambda: next((p for p in pods() if waiting_reason(p) == "CrashLoopBackOff"), None))
    assert "World size (4) is larger than" in pod.status.container_statuses[0].last_state.terminated.message


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("image-pull", "ImagePullBackOff"), ("crash-loop", "CrashLoopBackOff"), ("oom-killed", "CrashLoopBackOff")],
)
def test_faults_hold_a_pod_until_they_are_cleared(
    thread: ClusterThread, apps: client.AppsV1Api, namespace: str, deployment: Any, eventually: Any, pods: Any,
    inject: Any, kind: Any, reason: str,
) -> None:  # fmt: skip
    inject(Fault(kind, namespace=namespace))
    apps.create_namespaced_deployment(namespace, deployment("llm", namespace))
    pod = eventually(lambda: next((p for p in pods() if waiting_reason(p) == reason), None))
    if kind == "oom-killed":
        assert pod.status.container_statuses[0].last_state.terminated.reason == "OOMKilled"

    async def clear() -> None:
        thread.cluster.clear_faults()

    thread.call(clear())
    eventually(lambda: is_ready(pods()[0]))


def test_a_running_engine_is_struck_once_and_comes_back(
    apps: client.AppsV1Api, namespace: str, deployment: Any, eventually: Any, pods: Any, inject: Any
) -> None:
    apps.create_namespaced_deployment(namespace, deployment("llm", namespace))
    eventually(lambda: pods() and is_ready(pods()[0]))
    inject(Fault("oom-killed", namespace=namespace, times=1))
    eventually(lambda: pods()[0].status.container_statuses[0].restart_count == 1 and is_ready(pods()[0]))
    assert pods()[0].status.container_statuses[0].last_state.terminated.exit_code == 137


def test_never_ready_by_annotation_and_progress_deadline(
    apps: client.AppsV1Api, namespace: str, deployment: Any, eventually: Any, pods: Any
) -> None:
    body = deployment(
        "llm", namespace, annotations={"foundry.dev/fault": "never-ready"}, spec={"progressDeadlineSeconds": 400}
    )
    apps.create_namespaced_deployment(namespace, body)

    def late() -> bool:
        conditions = apps.read_namespaced_deployment("llm", namespace).status.conditions or []
        return any(item.reason == "ProgressDeadlineExceeded" and item.status == "False" for item in conditions)

    eventually(late)
    assert not is_ready(pods()[0]) and pods()[0].status.phase == "Running"


def test_liveness_restarts_what_no_longer_answers(
    core: client.CoreV1Api,
    apps: client.AppsV1Api,
    namespace: str,
    deployment: Any,
    eventually: Any,
    pods: Any,
    inject: Any,
) -> None:
    probe = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1, "failureThreshold": 2}
    apps.create_namespaced_deployment(namespace, deployment("llm", namespace, container={"livenessProbe": probe}))
    eventually(lambda: pods() and is_ready(pods()[0]))
    inject(Fault("never-ready", namespace=namespace))
    eventually(lambda: (pods()[0].status.container_statuses[0].restart_count or 0) >= 1)
    assert "Killing" in reasons(core, namespace)


def test_a_lost_node_loses_its_pods_to_another(
    core: client.CoreV1Api,
    apps: client.AppsV1Api,
    namespace: str,
    deployment: Any,
    eventually: Any,
    pods: Any,
    inject: Any,
) -> None:
    body = deployment("llm", namespace, gpus=8, nodeSelector={"nvidia.com/gpu.family": "hopper"})
    apps.create_namespaced_deployment(namespace, body)
    eventually(lambda: pods() and is_ready(pods()[0]))
    lost = pods()[0]
    inject(Fault("node-not-ready", node=lost.spec.node_name))

    def node_status() -> str:
        conditions = core.read_node(lost.spec.node_name).status.conditions
        return str(next(item.status for item in conditions if item.type == "Ready"))

    eventually(lambda: node_status() == "Unknown")
    with pytest.raises(httpx.TransportError):
        httpx.get(lost.metadata.annotations["foundry.dev/local-url"] + "/health")
    moved = eventually(lambda: next((pod for pod in pods() if is_ready(pod)), None), 20)
    assert moved.metadata.uid != lost.metadata.uid and moved.spec.node_name != lost.spec.node_name


def job(name: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "helm", "image": "docker.io/alpine/helm:3.18.4", "args": ["upgrade", "--install"]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"metadata": {"name": name}, "spec": {"template": template} | spec}


def finished(api: ApiClient, name: str, namespace: str) -> Any:
    conditions = client.BatchV1Api(api).read_namespaced_job(name, namespace).status.conditions or []
    return next((item for item in conditions if item.type in ("Complete", "Failed") and item.status == "True"), None)


def test_a_job_completes_and_is_removed_after_its_time(
    api: ApiClient, namespace: str, eventually: Any, pods: Any
) -> None:
    batch = client.BatchV1Api(api)
    batch.create_namespaced_job(namespace, job("install", ttlSecondsAfterFinished=400))
    assert eventually(lambda: finished(api, "install", namespace)).type == "Complete"
    assert batch.read_namespaced_job("install", namespace).status.succeeded == 1
    assert pods()[0].status.phase == "Succeeded"
    eventually(lambda: not batch.list_namespaced_job(namespace).items and not pods())


def test_a_job_fails_after_its_retries(api: ApiClient, namespace: str, eventually: Any, pods: Any, inject: Any) -> None:
    inject(Fault("job-failed", namespace=namespace))
    client.BatchV1Api(api).create_namespaced_job(namespace, job("install", backoffLimit=1))
    ended = eventually(lambda: finished(api, "install", namespace))
    assert (ended.type, ended.reason) == ("Failed", "BackoffLimitExceeded")
    assert [pod.status.phase for pod in pods()] == ["Failed", "Failed"]


def test_a_job_fails_at_its_deadline(api: ApiClient, namespace: str, eventually: Any, inject: Any) -> None:
    inject(Fault("image-pull", namespace=namespace))
    client.BatchV1Api(api).create_namespaced_job(namespace, job("install", activeDeadlineSeconds=100))
    assert eventually(lambda: finished(api, "install", namespace)).reason == "DeadlineExceeded"


def test_a_pod_needs_its_service_account(core: client.CoreV1Api, namespace: str) -> None:
    body = {
        "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "nobody", "containers": [{"name": "c", "image": "i"}]},
    }
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_pod(namespace, body)
    assert (
        caught.value.status == 403 and 'serviceaccount "nobody" not found' in json.loads(caught.value.body)["message"]
    )


def test_eviction_deletes_the_pod_and_it_is_replaced(
    core: client.CoreV1Api, apps: client.AppsV1Api, namespace: str, deployment: Any, eventually: Any, pods: Any
) -> None:
    apps.create_namespaced_deployment(namespace, deployment("llm", namespace))
    eventually(lambda: pods() and is_ready(pods()[0]))
    old = pods()[0].metadata
    core.create_namespaced_pod_eviction(old.name, namespace, client.V1Eviction(metadata={"name": old.name}))
    eventually(lambda: pods() and pods()[0].metadata.uid != old.uid and is_ready(pods()[0]))


def test_nodes_can_be_cordoned(core: client.CoreV1Api) -> None:
    core.patch_node("cpu-0", {"spec": {"unschedulable": True}})
    assert core.list_node(field_selector="spec.unschedulable=true").items[0].metadata.name == "cpu-0"
    core.patch_node("cpu-0", {"spec": {"unschedulable": None}})
