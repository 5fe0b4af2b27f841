"""A simulated cluster with quick engines, and the real Kubernetes client talking to it over HTTP."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from foundry_local.kube import ClusterThread, SimulatedCluster
from foundry_local.twin import EngineModel, EngineOptions, StartupError, TwinServer
from foundry_local.twin.engine import TwinEngine
from kubernetes import client
from kubernetes.client import ApiClient
from kubernetes.config import new_client_from_config_dict

SPEED = 200.0


def quick_engine(options: EngineOptions, device: str, architecture: Any, port: int) -> TwinServer:
    """A twin that loads at once; a model named `too-large` does not fit."""
    if options.model == "too-large":
        raise StartupError("torch.OutOfMemoryError: CUDA out of memory.")
    model = EngineModel(options.served_names[0], device, lambda *_: 1.0, 4000, 16, 4096, 64, 2048)
    return TwinServer(TwinEngine(model), options, port)


@pytest.fixture(scope="session")
def start_cluster() -> Callable[..., ClusterThread]:
    """Makes a cluster whose time runs fast; use it as a context."""

    def make(**options: Any) -> ClusterThread:
        return ClusterThread(SimulatedCluster(**({"speed": SPEED, "build_engine": quick_engine} | options)))

    return make


@pytest.fixture(scope="module")
def thread(start_cluster: Callable[..., ClusterThread]) -> Iterator[ClusterThread]:
    found = start_cluster()
    with found:
        yield found


@pytest.fixture(scope="module")
def cluster(thread: ClusterThread) -> SimulatedCluster:
    return thread.cluster


@pytest.fixture(scope="module")
def api(cluster: SimulatedCluster) -> ApiClient:
    return new_client_from_config_dict(cluster.kubeconfig())


@pytest.fixture(scope="module")
def core(api: ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(api)


@pytest.fixture(scope="module")
def apps(api: ApiClient) -> client.AppsV1Api:
    return client.AppsV1Api(api)


@pytest.fixture
def namespace(request: pytest.FixtureRequest, core: client.CoreV1Api) -> Iterator[str]:
    """A namespace of the test's own."""
    name = "".join(char if char.isalnum() else "-" for char in request.node.name.lower())[:50].strip("-")
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


@pytest.fixture
def clear_faults(thread: ClusterThread) -> Iterator[None]:
    yield

    async def clear() -> None:
        thread.cluster.clear_faults()

    thread.call(clear())


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    def wait(check: Callable[[], Any], timeout_s: float = 15.0) -> Any:
        """The first true value of `check`; fails with its last one."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = check()
            if found:
                return found
            assert time.monotonic() < deadline, f"never came true: {found!r}"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def deployment() -> Callable[..., dict[str, Any]]:
    def make(name: str, namespace: str, **options: Any) -> dict[str, Any]:
        """An engine deployment; `options`: replicas, gpus, args, model, image, annotations, container, spec, and any
        field of the pod spec."""
        args = ["--model", options.pop("model", "meta/llama"), *options.pop("args", [])]
        container = {
            "name": "engine",
            "image": options.pop("image", "docker.io/vllm/vllm-openai:v0.11.0"),
            "args": args,
            "ports": [{"name": "http", "containerPort": 8000}],
            "resources": {"limits": {"nvidia.com/gpu": str(options.pop("gpus", 1))}},
            "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5},
        } | options.pop("container", {})
        labels = {"app": name}
        metadata = {"labels": labels, "annotations": options.pop("annotations", {})}
        spec = {"replicas": options.pop("replicas", 1), "selector": {"matchLabels": dict(labels)}} | options.pop(
            "spec", {}
        )
        spec["template"] = {"metadata": metadata, "spec": {"containers": [container]} | options}
        identity = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace}}
        return identity | {"spec": spec}

    return make
