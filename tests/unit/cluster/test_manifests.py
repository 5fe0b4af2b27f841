"""The objects of a deployment, as people would review them."""

from typing import Any

import pytest

from functions.cluster import addons, kube
from functions.cluster.manifests import Workload, cluster_url, is_ours, manifests, namespace_of

ID = "dep_01m83s6a3006ehnx73qa1x5q7s"


@pytest.fixture
def workload() -> Workload:
    return Workload(
        deployment_id=ID, deployment_name="llama", project_id="prj_1", model_id="mdl_1", engine="vllm",
        image="docker.io/vllm/vllm-openai:v1", command=["vllm", "serve", "m", "--port", "8000"], replicas=2,
        gpus_per_replica=4, gpu_resource="nvidia.com/gpu", node_selector={"nvidia.com/gpu.product": "H"},
        tolerations=[{"key": "gpu", "operator": "Exists"}], model_config_json={"model_type": "llama"},
    )  # fmt: skip


@pytest.fixture
def objects(workload: Workload) -> dict[str, Any]:
    return {item["kind"]: item for item in manifests(workload)}


def test_everything_lives_in_one_namespace_of_its_own(objects: dict[str, Any]) -> None:
    name = "foundry-dep-01m83s6a3006ehnx73qa1x5q7s"
    assert namespace_of(ID) == name and len(name) <= 63
    assert objects["Namespace"]["metadata"]["name"] == name
    rest = [item for kind, item in objects.items() if kind != "Namespace"]
    assert {item["metadata"]["namespace"] for item in rest} == {name}
    assert list(objects) == ["Namespace", "ServiceAccount", "ConfigMap", "NetworkPolicy", "Service",
                             "PodDisruptionBudget", "Deployment"]  # fmt: skip


def test_every_object_says_whose_it_is(objects: dict[str, Any]) -> None:
    for item in objects.values():
        labels = item["metadata"]["labels"]
        assert labels["foundry.dev/deployment"] == ID and labels["foundry.dev/project"] == "prj_1"
        assert labels["app.kubernetes.io/managed-by"] == "foundry"
        assert all(len(value) <= 63 for value in labels.values())


def test_the_pod(objects: dict[str, Any], workload: Workload) -> None:
    spec = objects["Deployment"]["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert container["command"] == workload.command and container["image"] == workload.image
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "4"}
    assert container["resources"]["requests"]["nvidia.com/gpu"] == "4"
    assert pod["nodeSelector"] == workload.node_selector and pod["tolerations"] == workload.tolerations
    assert pod["automountServiceAccountToken"] is False and not container["securityContext"]["allowPrivilegeEscalation"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}
    patience_s = container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
    assert patience_s == 3600  # as long as the flow waits


def test_no_roll_out_needs_more_gpus_than_are_reserved(objects: dict[str, Any]) -> None:
    assert objects["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def test_selectors_match_the_pods_and_only_these(objects: dict[str, Any]) -> None:
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        objects["Deployment"]["spec"]["selector"]["matchLabels"], objects["Service"]["spec"]["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]  # fmt: skip
    for selector in selectors:
        assert selector.items() <= labels.items() and selector["foundry.dev/deployment"] == ID


def test_ingress_is_closed_but_for_named_peers(objects: dict[str, Any]) -> None:
    spec = objects["NetworkPolicy"]["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    [rule] = spec["ingress"]
    assert all(peer.get("podSelector") or peer["namespaceSelector"] for peer in rule["from"])
    assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]


def test_the_service_is_where_the_url_says(objects: dict[str, Any]) -> None:
    service = objects["Service"]
    metadata = service["metadata"]
    port = service["spec"]["ports"][0]["port"]
    assert cluster_url(ID) == f"http://{metadata['name']}.{metadata['namespace']}.svc.cluster.local:{port}"


def test_only_our_own_namespace_is_ours(objects: dict[str, Any]) -> None:
    assert is_ours(objects["Namespace"], ID) and not is_ours(objects["Namespace"], "dep_other")
    assert not is_ours({"metadata": {"name": namespace_of(ID)}}, ID)


def test_the_same_facts_make_the_same_objects(workload: Workload) -> None:
    assert manifests(workload) == manifests(workload)


def test_every_kind_has_a_path(workload: Workload) -> None:
    found = [kube.path_of(item) for item in manifests(workload) + addons.manifests("job")]
    namespace = namespace_of(ID)
    assert found[0] == f"/api/v1/namespaces/{namespace}"
    assert f"/apis/apps/v1/namespaces/{namespace}/deployments/engine" in found
    assert found[-1] == addons.job_path("job") == "/apis/batch/v1/namespaces/foundry-system/jobs/job"
    assert "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/foundry-addons" in found


def test_the_installer_pins_what_it_installs() -> None:
    job = addons.manifests(addons.job_name("run_01m83s6a3006ehnx73qa1x5q7s", 2))[-1]
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert not container["image"].endswith(":latest") and ":" in container["image"]
    assert "--version" in container["args"] and job["spec"]["activeDeadlineSeconds"] < 31 * 60
    assert len(job["metadata"]["name"]) <= 63 and job["metadata"]["name"].endswith("-2")


@pytest.mark.parametrize(
    ("job", "outcome"),
    [
        (None, "absent"),
        ({}, "running"),
        ({"status": {"conditions": [{"type": "Complete", "status": "False"}]}}, "running"),
        ({"status": {"conditions": [{"type": "SuccessCriteriaMet", "status": "True"},
                                    {"type": "Complete", "status": "True"}]}}, "complete"),
        ({"status": {"conditions": [{"type": "Failed", "status": "True", "message": "no"}]}}, "failed"),
    ],
)  # fmt: skip
def test_outcomes_of_the_installer(job: dict[str, Any] | None, outcome: str) -> None:
    assert addons.outcome(job)[0] == outcome
