"""One test per behaviour of kube-apiserver that Foundry relies on, through the real Python client."""

import json
from typing import Any

import httpx
import pytest
import urllib3
from foundry_local.kube import SimulatedCluster
from kubernetes import client, dynamic, utils, watch
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError

APPLY = "application/apply-patch+yaml"


def status_of(caught: "pytest.ExceptionInfo[ApiException]") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(caught.value.body)
    assert found["kind"] == "Status" and found["status"] == "Failure" and found["code"] == caught.value.status
    return found


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


# Access


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer", "Basic eDp5", "wrong"])
def test_401_without_the_token(cluster: SimulatedCluster, header: str | None) -> None:
    headers = {"authorization": header} if header else {}
    for path in ("/version", "/api", "/api/v1/nodes", "/apis/apps/v1/deployments", "/healthz"):
        response = httpx.get(cluster.url + path, headers=headers)
        assert response.status_code == 401 and response.json()["reason"] == "Unauthorized"


def test_version_and_health(api: ApiClient, cluster: SimulatedCluster) -> None:
    assert client.VersionApi(api).get_code().git_version.startswith("v1.33.")
    headers = {"authorization": f"Bearer {cluster.token}"}
    assert httpx.get(cluster.url + "/readyz", headers=headers).text == "ok"


def test_a_service_account_token_is_accepted(core: client.CoreV1Api, cluster: SimulatedCluster, namespace: str) -> None:
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "robot"}})
    body = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
    found = core.create_namespaced_service_account_token("robot", namespace, body)
    response = httpx.get(cluster.url + "/api/v1/nodes", headers={"authorization": f"Bearer {found.status.token}"})
    assert response.status_code == 200


# Discovery


def test_discovery_serves_the_dynamic_client(api: ApiClient) -> None:
    found = dynamic.DynamicClient(api).resources
    for api_version, kind in (
        ("v1", "Pod"), ("apps/v1", "Deployment"), ("batch/v1", "Job"), ("rbac.authorization.k8s.io/v1", "ClusterRole"),
        ("policy/v1", "PodDisruptionBudget"), ("networking.k8s.io/v1", "NetworkPolicy"), ("v1", "ServiceAccount"),
        ("coordination.k8s.io/v1", "Lease"), ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("autoscaling/v2", "HorizontalPodAutoscaler"), ("discovery.k8s.io/v1", "EndpointSlice"),
    ):  # fmt: skip
        assert found.get(api_version=api_version, kind=kind).kind == kind
    assert "scale" in found.get(api_version="apps/v1", kind="Deployment").subresources
    names = {group.name for group in client.ApisApi(api).get_api_versions().groups}
    assert {"apps", "batch", "rbac.authorization.k8s.io"} <= names


@pytest.mark.parametrize("path", ["/apis/none.io", "/apis/none.io/v1", "/api/v1/unicorns", "/nothing", "/api/v2", "/"])
def test_404_for_what_is_not_served(cluster: SimulatedCluster, path: str) -> None:
    response = httpx.get(cluster.url + path, headers={"authorization": f"Bearer {cluster.token}"})
    assert response.status_code == 404 and response.json()["kind"] == "Status"


# Objects


def test_create_get_list_replace_delete(core: client.CoreV1Api, namespace: str) -> None:
    created = core.create_namespaced_config_map(namespace, config_map("a", x="1"))
    assert created.metadata.uid and created.metadata.creation_timestamp and created.metadata.resource_version
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_config_map(namespace, config_map("a"))
    assert status_of(caught)["reason"] == "AlreadyExists" and caught.value.status == 409
    created.data = {"x": "2"}
    replaced = core.replace_namespaced_config_map("a", namespace, created)
    assert replaced.data == {"x": "2"} and replaced.metadata.uid == created.metadata.uid
    listed = core.list_namespaced_config_map(namespace, label_selector="app!=x")
    assert {"a", "kube-root-ca.crt"} == {item.metadata.name for item in listed.items}
    deleted = core.delete_namespaced_config_map("a", namespace)
    assert deleted.status == "Success" and deleted.details.uid == created.metadata.uid
    with pytest.raises(ApiException) as caught:
        core.read_namespaced_config_map("a", namespace)
    assert status_of(caught)["message"] == 'configmaps "a" not found'


def test_a_stale_resource_version_is_a_conflict(core: client.CoreV1Api, namespace: str) -> None:
    first = core.create_namespaced_config_map(namespace, config_map("a", x="1"))
    core.patch_namespaced_config_map("a", namespace, {"data": {"x": "2"}})
    first.data = {"x": "3"}
    with pytest.raises(ApiException) as caught:
        core.replace_namespaced_config_map("a", namespace, first)
    assert caught.value.status == 409 and "the object has been modified" in status_of(caught)["message"]
    first.metadata.resource_version = None
    assert core.replace_namespaced_config_map("a", namespace, first).data == {"x": "3"}


def test_generate_name_dry_run_and_names(core: client.CoreV1Api, namespace: str) -> None:
    body = {"metadata": {"generateName": "gen-"}}
    names = {core.create_namespaced_config_map(namespace, body).metadata.name for _ in range(5)}
    assert len(names) == 5 and all(name.startswith("gen-") and len(name) == 9 for name in names)
    assert core.create_namespaced_config_map(namespace, config_map("dry"), dry_run="All").metadata.uid
    with pytest.raises(ApiException) as caught:
        core.read_namespaced_config_map("dry", namespace)
    assert caught.value.status == 404
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_config_map(namespace, config_map("Not_A_Name"))
    assert caught.value.status == 422 and status_of(caught)["details"]["causes"][0]["field"] == "metadata.name"


def test_pages(core: client.CoreV1Api, namespace: str) -> None:
    for number in range(5):
        core.create_namespaced_config_map(namespace, config_map(f"c{number}"))
    names, token = [], None
    while True:
        page = core.list_namespaced_config_map(namespace, limit=2, _continue=token)
        assert len(page.items) <= 2
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert names == ["c0", "c1", "c2", "c3", "c4", "kube-root-ca.crt"]
    with pytest.raises(ApiException) as caught:
        core.list_namespaced_config_map(namespace, _continue="nonsense")
    assert caught.value.status == 400


def test_patch_formats(core: client.CoreV1Api, cluster: SimulatedCluster, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map("a", x="1", y="1"))
    merged = core.patch_namespaced_config_map("a", namespace, {"data": {"x": None, "z": "3"}})
    assert merged.data == {"y": "1", "z": "3"}
    operations = [{"op": "replace", "path": "/data/y", "value": "2"}]
    options = {"_content_type": "application/json-patch+json"}
    assert core.patch_namespaced_config_map("a", namespace, operations, **options).data == {"y": "2", "z": "3"}
    response = httpx.patch(
        f"{cluster.url}/api/v1/namespaces/{namespace}/configmaps/a",
        headers={"authorization": f"Bearer {cluster.token}", "content-type": "text/plain"},
        content=b"{}",
    )
    assert response.status_code == 415 and response.json()["reason"] == "UnsupportedMediaType"


def test_secrets_keep_string_data_encoded(core: client.CoreV1Api, namespace: str) -> None:
    body = {"metadata": {"name": "s"}, "stringData": {"key": "value"}}
    created = core.create_namespaced_secret(namespace, body)
    assert created.data == {"key": "dmFsdWU="} and created.string_data is None and created.type == "Opaque"


def test_deployments_get_their_defaults(apps: client.AppsV1Api, namespace: str, deployment: Any) -> None:
    found = apps.create_namespaced_deployment(namespace, deployment("llm", namespace, replicas=0))
    assert found.spec.strategy.rolling_update.max_surge == "25%" and found.spec.progress_deadline_seconds == 600
    container = found.spec.template.spec.containers[0]
    assert container.image_pull_policy == "IfNotPresent" and container.ports[0].protocol == "TCP"
    assert container.resources.requests == {"nvidia.com/gpu": "1"}
    assert container.readiness_probe.failure_threshold == 3 and found.metadata.generation == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda spec: spec["selector"]["matchLabels"].update(app="other"), "spec.template.metadata.labels"),
        (lambda spec: spec["template"]["spec"].update(containers=[]), "spec.template.spec.containers"),
        (lambda spec: spec["template"]["spec"]["containers"][0].pop("image"), "spec.template.spec.containers[0].image"),
        (lambda spec: spec.update(replicas=-1), "spec.replicas"),
        (
            lambda spec: spec["template"]["spec"]["containers"][0]["resources"]["limits"].update(
                {"nvidia.com/gpu": "0.5"}
            ),
            "spec.template.spec.containers[0].resources.limits.nvidia.com/gpu",
        ),
    ],
)
def test_invalid_deployments(apps: client.AppsV1Api, deployment: Any, change: Any, field: str) -> None:
    body = deployment("bad", "default")
    change(body["spec"])
    with pytest.raises(ApiException) as caught:
        apps.create_namespaced_deployment("default", body)
    assert caught.value.status == 422
    assert field in [cause["field"] for cause in status_of(caught)["details"]["causes"]]


@pytest.mark.parametrize(
    "spec", [[], "x", {"template": 3}, {"template": {"spec": {"containers": [4]}}}, {"selector": 7}]
)
def test_nonsense_is_a_bad_request_and_not_a_crash(cluster: SimulatedCluster, spec: Any) -> None:
    response = httpx.post(
        cluster.url + "/apis/apps/v1/namespaces/default/deployments",
        headers={"authorization": f"Bearer {cluster.token}"},
        json={"metadata": {"name": "x"}, "spec": spec},
    )
    assert response.status_code in (400, 422) and response.json()["kind"] == "Status"


def test_bodies_have_a_limit(cluster: SimulatedCluster) -> None:
    response = httpx.post(
        cluster.url + "/api/v1/namespaces/default/configmaps",
        headers={"authorization": f"Bearer {cluster.token}"},
        content=b"x" * (3 * 1024 * 1024 + 1),
    )
    assert response.status_code == 413


def test_namespace_must_exist_and_not_end(core: client.CoreV1Api) -> None:
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_config_map("nowhere", config_map("a"))
    assert status_of(caught)["message"] == 'namespaces "nowhere" not found'


def test_namespace_deletion_takes_its_contents(
    core: client.CoreV1Api, apps: client.AppsV1Api, deployment: Any, eventually: Any
) -> None:
    core.create_namespace({"metadata": {"name": "doomed"}})
    apps.create_namespaced_deployment("doomed", deployment("llm", "doomed"))
    eventually(lambda: core.list_namespaced_pod("doomed").items)
    core.delete_namespace("doomed")
    eventually(lambda: "doomed" not in [item.metadata.name for item in core.list_namespace().items])
    assert not core.list_pod_for_all_namespaces(label_selector="app=llm").items


def test_the_subresource_writes_status_only(apps: client.AppsV1Api, namespace: str, deployment: Any) -> None:
    body = deployment("llm", namespace, replicas=0)
    apps.create_namespaced_deployment(namespace, body)
    mixed = {"spec": {"replicas": 3}, "status": {"collisionCount": 4}}
    by_status = apps.patch_namespaced_deployment_status("llm", namespace, mixed)
    assert by_status.status.collision_count == 4 and by_status.spec.replicas == 0
    by_spec = apps.patch_namespaced_deployment(
        "llm", namespace, {"status": {"collisionCount": 9}, "spec": {"paused": True}}
    )
    assert by_spec.status.collision_count == 4 and by_spec.spec.paused


def test_scale(apps: client.AppsV1Api, namespace: str, deployment: Any) -> None:
    apps.create_namespaced_deployment(namespace, deployment("llm", namespace, replicas=0))
    scaled = apps.patch_namespaced_deployment_scale("llm", namespace, {"spec": {"replicas": 2}})
    assert scaled.spec.replicas == 2 and scaled.status.selector == "app=llm"
    assert apps.read_namespaced_deployment("llm", namespace).spec.replicas == 2


def test_create_from_yaml_utility(api: ApiClient, core: client.CoreV1Api, namespace: str) -> None:
    utils.create_from_dict(api, config_map("from-utils", x="1"), namespace=namespace)
    assert core.read_namespaced_config_map("from-utils", namespace).data == {"x": "1"}


# Server-side apply


def test_apply_creates_then_updates_then_changes_nothing(
    api: ApiClient, core: client.CoreV1Api, namespace: str
) -> None:
    resource = dynamic.DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")

    def apply(body: dict[str, Any], manager: str = "foundry", force: bool = False) -> Any:
        return resource.server_side_apply(body, namespace=namespace, field_manager=manager, force_conflicts=force)

    first = apply(config_map("a", x="1", y="1"))
    assert apply(config_map("a", x="1", y="1")).metadata.resourceVersion == first.metadata.resourceVersion
    second = apply(config_map("a", x="2"))
    assert second.data.to_dict() == {"x": "2"}, "what is left out is removed"
    assert [(entry.manager, entry.operation) for entry in second.metadata.managedFields] == [("foundry", "Apply")]
    with pytest.raises(ConflictError) as caught:
        apply(config_map("a", x="3"), "other")
    assert 'conflict with \\"foundry\\": .data.x' in caught.value.body
    assert apply(config_map("a", x="3"), "other", force=True).data.x == "3"
    core.patch_namespaced_config_map("a", namespace, {"data": {"z": "1"}}, field_manager="hand")
    assert core.read_namespaced_config_map("a", namespace).data == {"x": "3", "z": "1"}


def test_apply_through_the_typed_client(core: client.CoreV1Api, api: ApiClient, namespace: str) -> None:
    body = config_map("typed", x="1")
    options = {"field_manager": "foundry", "force": True, "_content_type": APPLY}
    _, status, _ = core.patch_namespaced_config_map_with_http_info("typed", namespace, body, **options)
    assert status == 201
    _, status, _ = core.patch_namespaced_config_map_with_http_info("typed", namespace, body, **options)
    assert status == 200
    with pytest.raises(ApiException) as caught:
        core.patch_namespaced_config_map("typed", namespace, body, _content_type=APPLY)
    assert caught.value.status == 400 and "fieldManager" in status_of(caught)["message"]


def test_apply_leaves_what_controllers_wrote(core: client.CoreV1Api, namespace: str, eventually: Any) -> None:
    spec = {"selector": {"app": "x"}, "ports": [{"name": "http", "port": 80}]}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}

    def apply() -> Any:
        return core.patch_namespaced_service("s", namespace, body, field_manager="f", force=True, _content_type=APPLY)

    address = apply().spec.cluster_ip
    eventually(lambda: core.read_namespaced_service("s", namespace).metadata.annotations)
    again = apply()
    assert again.spec.cluster_ip == address and "foundry.dev/local-url" in again.metadata.annotations
    assert again.spec.ports[0].target_port == 80


# Deletion


def owned_by(owner: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": owner.metadata.name, "uid": owner.metadata.uid}


def test_background_foreground_and_orphan(core: client.CoreV1Api, namespace: str, eventually: Any) -> None:
    def names() -> set[str]:
        return {item.metadata.name for item in core.list_namespaced_config_map(namespace).items} - {"kube-root-ca.crt"}

    for policy in ("Background", "Foreground", "Orphan"):
        owner = core.create_namespaced_config_map(namespace, config_map("owner"))
        child = config_map("child")
        child["metadata"]["ownerReferences"] = [owned_by(owner)]
        core.create_namespaced_config_map(namespace, child)
        core.delete_namespaced_config_map("owner", namespace, propagation_policy=policy)
        left = {"child"} if policy == "Orphan" else set()
        eventually(lambda left=left: names() == left)
    assert core.read_namespaced_config_map("child", namespace).metadata.owner_references is None


def test_finalizers_hold_an_object(core: client.CoreV1Api, namespace: str) -> None:
    body = config_map("held")
    body["metadata"]["finalizers"] = ["foundry.dev/hold"]
    core.create_namespaced_config_map(namespace, body)
    core.delete_namespaced_config_map("held", namespace)
    assert core.read_namespaced_config_map("held", namespace).metadata.deletion_timestamp
    core.patch_namespaced_config_map("held", namespace, {"metadata": {"finalizers": None}})
    with pytest.raises(ApiException) as caught:
        core.read_namespaced_config_map("held", namespace)
    assert caught.value.status == 404


def test_preconditions_and_collections(core: client.CoreV1Api, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map("a") | {"metadata": {"name": "a", "labels": {"k": "1"}}})
    core.create_namespaced_config_map(namespace, config_map("b"))
    with pytest.raises(ApiException) as caught:
        core.delete_namespaced_config_map("a", namespace, body={"preconditions": {"uid": "other"}})
    assert caught.value.status == 409
    core.delete_collection_namespaced_config_map(namespace, label_selector="k=1")
    names = [item.metadata.name for item in core.list_namespaced_config_map(namespace).items]
    assert names == ["b", "kube-root-ca.crt"]


# Custom resources


def test_custom_resources(api: ApiClient, namespace: str) -> None:
    names = {"plural": "widgets", "kind": "Widget", "shortNames": ["w"]}
    version = {
        "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }  # fmt: skip
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.shop.example"},
        "spec": {"group": "shop.example", "scope": "Namespaced", "names": names, "versions": [version]},
    }  # fmt: skip
    extensions, custom = client.ApiextensionsV1Api(api), client.CustomObjectsApi(api)
    extensions.create_custom_resource_definition(crd)
    place = ("shop.example", "v1", namespace, "widgets")
    body = {"apiVersion": "shop.example/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1}}
    created = custom.create_namespaced_custom_object(*place, body)
    assert created["metadata"]["generation"] == 1
    changed = custom.patch_namespaced_custom_object(*place, "w", {"spec": {"size": 2}, "status": {"x": 1}})
    assert changed["spec"] == {"size": 2} and "status" not in changed and changed["metadata"]["generation"] == 2
    status = custom.patch_namespaced_custom_object_status(*place, "w", {"status": {"x": 1}})
    assert status["status"] == {"x": 1}
    found = dynamic.DynamicClient(api).resources.get(api_version="shop.example/v1", kind="Widget")
    assert found.get(namespace=namespace).items[0].spec.size == 2
    extensions.delete_custom_resource_definition("widgets.shop.example")
    with pytest.raises(ApiException) as caught:
        custom.list_namespaced_custom_object(*place)
    assert caught.value.status == 404


# Watch


def test_watch_resumes_and_follows_selectors(core: client.CoreV1Api, namespace: str) -> None:
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, config_map("a") | {"metadata": {"name": "a", "labels": {"on": "1"}}})
    core.create_namespaced_config_map(namespace, config_map("b"))
    core.patch_namespaced_config_map("a", namespace, {"data": {"x": "1"}})
    core.patch_namespaced_config_map("a", namespace, {"metadata": {"labels": {"on": None}}})
    core.patch_namespaced_config_map("b", namespace, {"metadata": {"labels": {"on": "1"}}})
    core.delete_namespaced_config_map("b", namespace)
    options = {"resource_version": start, "label_selector": "on=1", "timeout_seconds": 1}
    found = [
        (event["type"], event["object"].metadata.name)
        for event in watch.Watch().stream(core.list_namespaced_config_map, namespace, **options)
    ]
    assert found == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "b"), ("DELETED", "b")]


def test_watch_without_version_starts_with_what_is_there_and_ends_in_a_bookmark(
    core: client.CoreV1Api, namespace: str
) -> None:
    core.create_namespaced_config_map(namespace, config_map("a"))
    events = list(
        watch.Watch().stream(core.list_namespaced_config_map, namespace, timeout_seconds=1, allow_watch_bookmarks=True)
    )
    assert [event["type"] for event in events] == ["ADDED", "ADDED", "BOOKMARK"]
    last = events[-1]["raw_object"]["metadata"]["resourceVersion"]
    assert int(last) >= int(events[0]["raw_object"]["metadata"]["resourceVersion"])


def test_watch_from_too_old_a_version_says_410(
    core: client.CoreV1Api, namespace: str, cluster: SimulatedCluster
) -> None:
    start = core.create_namespaced_config_map(namespace, config_map("a")).metadata.resource_version
    core.create_namespaced_config_map(namespace, config_map("b"))
    cluster.store.compact()
    with pytest.raises(ApiException) as caught:
        list(
            watch.Watch().stream(core.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=1)
        )
    assert caught.value.status == 410


def test_watch_delivers_live_events_while_the_client_waits(
    core: client.CoreV1Api, apps: client.AppsV1Api, namespace: str, deployment: Any
) -> None:
    follower, start = watch.Watch(), core.list_namespaced_pod(namespace).metadata.resource_version
    stream = follower.stream(core.list_namespaced_pod, namespace, resource_version=start, timeout_seconds=20)
    apps.create_namespaced_deployment(namespace, deployment("llm", namespace))
    states = []
    for event in stream:
        pod = event["object"]
        ready = any(item.type == "Ready" and item.status == "True" for item in pod.status.conditions or [])
        states.append((event["type"], pod.status.phase, bool(pod.spec.node_name), ready))
        if ready:
            follower.stop()
    assert states[0] == ("ADDED", "Pending", False, False)
    assert states[-1] == ("MODIFIED", "Running", True, True)


def test_a_watch_that_nobody_reads_any_more_is_dropped(cluster: SimulatedCluster, eventually: Any) -> None:
    before = len(cluster.store._listeners)
    pool = urllib3.PoolManager()
    headers = {"authorization": f"Bearer {cluster.token}"}
    response = pool.request(
        "GET", cluster.url + "/api/v1/pods?watch=1&resourceVersion=0", headers=headers, preload_content=False
    )
    eventually(lambda: len(cluster.store._listeners) == before + 1)
    response.connection.close()
    response.close()
    eventually(lambda: len(cluster.store._listeners) == before)
