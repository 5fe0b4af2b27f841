"""What survives a restart of the simulated cluster, and what a snapshot file must not break."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from foundry_local.kube import ClusterThread, SimulatedCluster
from kubernetes import client
from kubernetes.config import new_client_from_config_dict

Start = Callable[..., ClusterThread]


def ready_pods(cluster: SimulatedCluster) -> list[Any]:
    core = client.CoreV1Api(new_client_from_config_dict(cluster.kubeconfig()))
    pods = core.list_namespaced_pod("default").items
    return [p for p in pods if any(c.type == "Ready" and c.status == "True" for c in p.status.conditions or [])]


def test_engines_and_addresses_come_back(
    tmp_path: Path, start_cluster: Start, deployment: Any, eventually: Callable[..., Any]
) -> None:
    state = tmp_path / "kube" / "state.json"
    with start_cluster(state_path=state) as first:
        api = new_client_from_config_dict(first.kubeconfig())
        client.AppsV1Api(api).create_namespaced_deployment("default", deployment("llm", "default", replicas=2))
        spec = {"selector": {"app": "llm"}, "ports": [{"port": 80, "targetPort": 8000}]}
        client.CoreV1Api(api).create_namespaced_service("default", {"metadata": {"name": "llm"}, "spec": spec})
        before = {
            pod.metadata.name: pod for pod in eventually(lambda: len(ready_pods(first)) == 2 and ready_pods(first))
        }
        read = client.CoreV1Api(api).read_namespaced_service
        address = eventually(lambda: read("llm", "default").metadata.annotations)["foundry.dev/local-url"]
        config, version = first.kubeconfig(), first.store.revision
    assert stat.S_IMODE(state.stat().st_mode) == 0o600, "it holds secrets"
    with pytest.raises(httpx.ConnectError):
        httpx.get(address + "/health")
    with start_cluster(state_path=state) as second:
        assert second.kubeconfig() == config, "stored kubeconfigs stay valid"
        assert second.store.revision >= version
        after = {
            pod.metadata.name: pod for pod in eventually(lambda: len(ready_pods(second)) == 2 and ready_pods(second))
        }
        assert {n: p.metadata.uid for n, p in after.items()} == {n: p.metadata.uid for n, p in before.items()}
        for name, pod in after.items():
            assert pod.metadata.annotations == before[name].metadata.annotations, "the same port"
            assert pod.status.container_statuses[0].restart_count == 0
        assert httpx.get(address + "/v1/models").status_code == 200


def test_the_snapshot_is_written_while_it_runs(
    tmp_path: Path, start_cluster: Start, eventually: Callable[..., Any]
) -> None:
    state = tmp_path / "state.json"
    with start_cluster(state_path=state, snapshot_interval_s=0.05) as cluster:
        core = client.CoreV1Api(new_client_from_config_dict(cluster.kubeconfig()))
        core.create_namespaced_config_map("default", {"metadata": {"name": "kept"}, "data": {"x": "1"}})
        eventually(lambda: state.exists() and b'"kept"' in state.read_bytes())
        assert [path.name for path in tmp_path.iterdir()] == ["state.json"], "no draft is left behind"
        content = json.loads(state.read_bytes())
        assert content["port"] == cluster.port and content["token"] == cluster.token


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 99}', b'{"format": 1}'])
def test_a_file_that_is_no_snapshot_is_named_and_kept(tmp_path: Path, start_cluster: Start, content: bytes) -> None:
    state = tmp_path / "state.json"
    state.write_bytes(content)
    with pytest.raises(ValueError, match=r"state\.json is no snapshot"), start_cluster(state_path=state):
        pass
    assert state.read_bytes() == content


def test_given_token_and_nodes(start_cluster: Start) -> None:
    with start_cluster(nodes=[], token="sesame") as cluster:
        headers = {"authorization": "Bearer sesame"}
        assert httpx.get(cluster.url + "/api/v1/nodes", headers=headers).json()["items"] == []
        assert "token: sesame" in cluster.kubeconfig_yaml()
