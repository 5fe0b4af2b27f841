"""Registration of clusters: what is accepted, what is kept secret, how failures are told."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from foundry_core import runs, secrets
from foundry_local.kube import Fault, SimulatedCluster
from kubernetes import client as kubernetes

from functions.cluster import addons
from functions.cluster.handler import task
from functions.cluster.store import clusters as store

Call = Callable[..., Any]


def request(text: str, **more: Any) -> dict[str, Any]:
    return {"name": "demo", "kind": "eks", "kubeconfig": text, **more}


def kubeconfig(server: str, token: str = "t") -> str:
    return yaml.safe_dump({
        "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": token}}],
    })  # fmt: skip


def items() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = boto3.resource("dynamodb").Table("foundry-test-cluster").scan()["Items"]
    return found


def test_a_cluster_is_discovered(call: Call, cluster: dict[str, Any]) -> None:
    assert cluster["status"] == "ready" and cluster["kubernetes_version"].startswith("v1.")
    assert (cluster["node_count"], cluster["gpu_count"], cluster["gpus_reserved"]) == (5, 28, 0)
    assert {group["name"]: (group["device"], group["nodes"]) for group in cluster["device_groups"]} == {
        "h100-sxm-x8": ("h100_sxm", 2), "a100-sxm-x8": ("a100_sxm", 1), "l40s-x4": ("l40s", 1),
    }  # fmt: skip
    run = runs.get(cluster["run_id"])
    assert run.result == {"cluster_id": cluster["id"], "node_count": 5, "gpu_count": 28}
    nodes = call("GET", f"/clusters/{cluster['id']}/nodes", limit=2).ok()
    assert len(nodes["items"]) == 2 and nodes["next_cursor"] and nodes["items"][0]["ready"]
    kinds = [json.loads(str(item["event"]))["type"] for item in items() if item["kind"] == "outbox"]
    assert sorted(kinds) == ["foundry.cluster.created.v1", "foundry.cluster.ready.v1"]


def test_the_answer_is_where_the_cluster_is(call: Call, simulated: SimulatedCluster) -> None:
    answer = call("POST", "/clusters", request(simulated.kubeconfig_yaml()))
    body = answer.ok(202)
    assert answer.headers["location"] == f"/clusters/{body['cluster']['id']}"
    assert body["run"]["kind"] == "register_cluster" and body["run"]["subject_id"] == body["cluster"]["id"]
    assert body["cluster"]["status"] == "registering" and body["cluster"]["run_id"] == body["run"]["id"]


def test_the_kubeconfig_is_never_shown_and_never_stored_in_the_clear(
    call: Call, cluster: dict[str, Any], simulated: SimulatedCluster
) -> None:
    shown = json.dumps([call("GET", "/clusters").ok(), cluster, call("GET", f"/clusters/{cluster['id']}").ok()])
    runs_kept = str(boto3.client("dynamodb").scan(TableName="foundry-test-runs")["Items"])
    assert simulated.token not in shown + str(items()) + runs_kept


def test_a_sealed_kubeconfig_opens_only_for_its_own_cluster(cluster: dict[str, Any]) -> None:
    sealed = store.load_secret(cluster["id"])
    bound = {"purpose": "kubeconfig", "cluster_id": cluster["id"]}
    assert json.loads(secrets.unseal(sealed, bound))["server"] == cluster["server"]
    with pytest.raises(secrets.SecretUnreadable):
        secrets.unseal(sealed, {**bound, "cluster_id": "cls_other"})
    changed = sealed["sealed"][:-4] + ("AAA=" if not sealed["sealed"].endswith("AAA=") else "BBB=")
    with pytest.raises(secrets.SecretUnreadable):
        secrets.unseal({**sealed, "sealed": changed}, bound)


def test_a_busy_key_service_does_not_make_a_secret_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = secrets.seal("x", {"a": "b"})
    busy = ClientError({"Error": {"Code": "ThrottlingException"}}, "Decrypt")

    class Busy:
        def decrypt(self, **_: object) -> None:
            raise busy

    monkeypatch.setattr(secrets, "client", lambda _: Busy())
    with pytest.raises(ClientError):
        secrets.unseal(sealed, {"a": "b"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x: [",
        "kind: Config",
        kubeconfig("http://10.0.0.1:8080"),
        kubeconfig("https://169.254.169.254"),
        "a" * 70_000,
    ],
)
def test_a_bad_kubeconfig_writes_nothing(call: Call, text: str) -> None:
    answer = call("POST", "/clusters", request(text))
    assert answer.status == 422 and answer.body["code"] in {"kubeconfig_invalid", "invalid_request"}
    assert not items()


def test_bad_requests(call: Call, simulated: SimulatedCluster) -> None:
    good = simulated.kubeconfig_yaml()
    call("POST", "/clusters", request(good, kind="minikube")).problem(422, "invalid_request")
    call("POST", "/clusters", request(good, name="Not A Name")).problem(422, "invalid_request")
    call("POST", "/clusters", request(good, secret="x")).problem(422, "invalid_request")
    call("POST", "/clusters", request("x" * 1_100_000)).problem(413, "body_too_large")


def test_a_taken_name(call: Call, cluster: dict[str, Any], simulated: SimulatedCluster) -> None:
    call("POST", "/clusters", request(simulated.kubeconfig_yaml())).problem(409, "name_taken")
    other = call("POST", "/clusters", request(simulated.kubeconfig_yaml(), name="other")).ok(202)["cluster"]
    call("PATCH", f"/clusters/{other['id']}", {"name": "demo"}).problem(409, "name_taken")
    assert call("PATCH", f"/clusters/{other['id']}", {"name": "third"}).ok()["name"] == "third"
    call("PATCH", f"/clusters/{cluster['id']}", {"name": "other"}).ok()


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def closed_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_unreachable_cluster_is_told_soon(call: Call, flow: Any) -> None:
    accepted = call("POST", "/clusters", request(kubeconfig(closed_port()))).ok(202)
    started = time.monotonic()
    run = flow.drive(accepted["run"]["id"])
    assert time.monotonic() - started < 5
    assert run.status == "failed" and run.error and run.error.code == "cluster_unreachable" and run.error.next_action
    found = call("GET", f"/clusters/{accepted['cluster']['id']}").ok()
    assert found["status"] == "failed" and found["error"]["code"] == "cluster_unreachable"


def test_silence_is_unreachable_within_a_bound(
    call: Call, flow: Any, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("functions.cluster.kube.READ_TIMEOUT_S", 0.2)
    accepted = call("POST", "/clusters", request(kubeconfig(silent))).ok(202)
    run = flow.drive(accepted["run"]["id"])
    assert run.error and run.error.code == "cluster_unreachable" and "in time" in run.error.detail


def test_refused_credentials_are_the_kubeconfigs_fault(call: Call, flow: Any, simulated: SimulatedCluster) -> None:
    accepted = call("POST", "/clusters", request(kubeconfig(simulated.url, "wrong"))).ok(202)
    run = flow.drive(accepted["run"]["id"])
    assert run.error and run.error.code == "kubeconfig_invalid" and "credentials" in run.error.detail


@pytest.mark.parametrize("fault", ["unreachable", "refused"])
def test_a_kubeconfig_that_does_not_work_leaves_the_one_that_does(
    call: Call, cluster: dict[str, Any], simulated: SimulatedCluster, fault: str
) -> None:
    path, kept = f"/clusters/{cluster['id']}", store.load_secret(cluster["id"])
    if fault == "unreachable":
        call("PATCH", path, {"kubeconfig": kubeconfig(closed_port())}).problem(503, "cluster_unreachable")
    else:
        call("PATCH", path, {"kubeconfig": kubeconfig(simulated.url, "wrong")}).problem(422, "kubeconfig_invalid")
    assert store.load_secret(cluster["id"]) == kept and call("GET", path).ok() == cluster


def test_a_failed_registration_is_mended_with_a_new_kubeconfig(
    call: Call, flow: Any, simulated: SimulatedCluster
) -> None:
    accepted = call("POST", "/clusters", request(kubeconfig(closed_port()))).ok(202)
    flow.drive(accepted["run"]["id"])
    path = f"/clusters/{accepted['cluster']['id']}"
    changed = call("PATCH", path, {"kubeconfig": simulated.kubeconfig_yaml()}).ok()
    assert changed["status"] == "registering" and changed["run_id"] != accepted["run"]["id"]
    call("PATCH", path, {"kubeconfig": simulated.kubeconfig_yaml()}).problem(409, "cluster_busy")
    call("DELETE", path).problem(409, "cluster_busy")
    assert flow.drive(changed["run_id"]).status == "succeeded"
    found = call("GET", path).ok()
    assert found["status"] == "ready" and found["error"] is None


def test_a_cancelled_registration(call: Call, flow: Any, simulated: SimulatedCluster) -> None:
    accepted = call("POST", "/clusters", request(simulated.kubeconfig_yaml())).ok(202)
    run_id = accepted["run"]["id"]
    flow.before["install_addons"] = lambda: runs.cancel(run_id)
    assert flow.drive(run_id).status == "cancelled"
    path = f"/clusters/{accepted['cluster']['id']}"
    assert call("GET", path).ok()["error"]["code"] == "run_cancelled"
    assert call("DELETE", path).status == 204
    call("GET", path).problem(404, "cluster_not_found")
    assert [item["kind"] for item in items() if item["kind"] != "outbox"] == []


def test_prices_survive_a_new_discovery(call: Call, cluster: dict[str, Any], flow: Any) -> None:
    path = f"/clusters/{cluster['id']}"
    call("PATCH", path, {"prices_nanos_per_hour": {"l40s-x4": 5}}).ok()
    from functions.cluster.tasks.clusters import discover

    discover(cluster["id"])
    prices = {group["name"]: group["price_nanos_per_hour"] for group in call("GET", path).ok()["device_groups"]}
    assert prices == {"l40s-x4": 5, "h100-sxm-x8": None, "a100-sxm-x8": None}


def test_if_match(call: Call, cluster: dict[str, Any]) -> None:
    path = f"/clusters/{cluster['id']}"
    tag = call("GET", path).headers["etag"]
    assert call("GET", path, headers={"if-none-match": tag}).status == 304
    call("PATCH", path, {"description": "a"}, headers={"if-match": tag}).ok()
    call("PATCH", path, {"description": "b"}, headers={"if-match": tag}).problem(412, "precondition_failed")
    assert call("GET", path).ok()["description"] == "a"


@pytest.fixture
def bare_node(core: kubernetes.CoreV1Api) -> Iterator[str]:
    """A node with NVIDIA GPUs built in that nobody has announced."""
    labels = {"feature.node.kubernetes.io/pci-10de.present": "true"}
    status = {"allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110"},
              "conditions": [{"type": "Ready", "status": "True"}]}  # fmt: skip
    core.create_node({"metadata": {"name": "bare", "labels": labels}, "status": status})
    yield "bare"
    core.delete_node("bare")


def test_missing_addons_are_installed_and_waited_for(
    call: Call, flow: Any, simulated: SimulatedCluster, core: kubernetes.CoreV1Api, bare_node: str
) -> None:
    accepted = call("POST", "/clusters", request(simulated.kubeconfig_yaml())).ok(202)
    run, state = runs.get(accepted["run"]["id"]), dict[str, Any]()
    for step in ("connect", "discover_nodes", "install_addons"):
        flow.perform(run, step, state)
    payload = {"task": "addons_ready", "step": "addons_ready", "run_id": run.id, "attempt": 1, "input": state}
    assert task(payload, flow.context)["status"] == "waiting"
    labels = {"nvidia.com/gpu.product": "NVIDIA-L4"}
    core.patch_node(bare_node, {"metadata": {"labels": labels}})
    core.patch_node_status(bare_node, {"status": {"allocatable": {"nvidia.com/gpu": "2"}}})
    flow.perform(run, "addons_ready", state)
    found = call("GET", f"/clusters/{accepted['cluster']['id']}").ok()
    assert "l4-x2" in {group["name"] for group in found["device_groups"]}
    for step in ("mark_ready", "finish_run"):
        flow.perform(run, step, state)
    core.delete_namespace(addons.NAMESPACE)


def test_addons_that_cannot_be_installed(
    call: Call, flow: Any, simulated: SimulatedCluster, core: kubernetes.CoreV1Api, bare_node: str
) -> None:
    simulated.inject(Fault("job-failed", namespace=addons.NAMESPACE))
    accepted = call("POST", "/clusters", request(simulated.kubeconfig_yaml())).ok(202)
    run = flow.drive(accepted["run"]["id"])
    assert run.status == "failed" and run.error and run.error.code == "addons_failed" and run.error.next_action
    core.delete_namespace(addons.NAMESPACE)


@pytest.mark.parametrize(
    ("role", "write", "read"),
    [("admin", 202, 200), ("operator", 202, 200), ("developer", 403, 200), ("auditor", 403, 200), ("client", 403, 403)],
)
def test_roles(call: Call, simulated: SimulatedCluster, role: str, write: int, read: int) -> None:
    assert call("POST", "/clusters", request(simulated.kubeconfig_yaml()), role).status == write
    assert call("GET", "/clusters", principal=role).status == read


def test_nodes_that_make_no_sense_are_the_clusters_fault(
    call: Call, flow: Any, simulated: SimulatedCluster, core: kubernetes.CoreV1Api
) -> None:
    status = {"allocatable": {"cpu": "8", "nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]}
    annotations = {"hami.io/node-nvidia-register": "[5, null, {}]"}
    core.create_node({"metadata": {"name": "odd", "annotations": annotations}, "status": status})
    accepted = call("POST", "/clusters", request(simulated.kubeconfig_yaml())).ok(202)
    run, state = runs.get(accepted["run"]["id"]), dict[str, Any]()
    for step in ("connect", "discover_nodes"):
        flow.perform(run, step, state)
    core.delete_node("odd")
    assert call("GET", f"/clusters/{accepted['cluster']['id']}").ok()["node_count"] == 6


def test_hostile_nodes(call: Call, flow: Any, simulated: SimulatedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile: list[dict[str, Any]] = [
        {"metadata": {}}, {"metadata": 5}, {"metadata": {"name": "x", "labels": 5}},
        {"metadata": {"name": "x"}, "status": {"allocatable": {"cpu": "many"}}},
        {"metadata": {"name": "x"}, "spec": {"taints": [5]}},
    ]  # fmt: skip
    for number, node in enumerate(hostile):
        monkeypatch.setattr("functions.cluster.kube.Kube.items", lambda self, path, node=node: iter([node]))
        accepted = call("POST", "/clusters", request(simulated.kubeconfig_yaml(), name=f"h{number}")).ok(202)
        run = flow.drive(accepted["run"]["id"])
        assert run.error and run.error.code == "cluster_unreachable", node
