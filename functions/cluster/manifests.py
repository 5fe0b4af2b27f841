"""The Kubernetes objects of one deployment: pure functions from facts to manifests.

Each deployment has a namespace of its own, so that taking it back is one deletion and leaves nothing behind.
"""

import json
from typing import Any

from pydantic import BaseModel

Obj = dict[str, Any]
PORT = 8000
NAME = "engine"
_MANAGED_BY = "app.kubernetes.io/managed-by"
_CACHE_PATH = "/root/.cache/huggingface"
# Weights of the largest models take tens of minutes to fetch and load.
_STARTUP_PERIOD_S = 10
_STARTUP_FAILURES = 360


class Workload(BaseModel):
    """What runs: one pod per replica. ``command`` is the whole command line of the engine."""

    deployment_id: str
    deployment_name: str
    project_id: str
    model_id: str
    engine: str
    image: str
    command: list[str]
    replicas: int
    gpus_per_replica: int
    gpu_resource: str
    node_selector: dict[str, str]
    tolerations: list[dict[str, str]] = []
    model_config_json: dict[str, Any] = {}
    health_path: str = "/health"
    drain_s: int = 30


def namespace_of(deployment_id: str) -> str:
    """A DNS label: identifiers have an underscore, namespaces must not."""
    return f"foundry-{deployment_id.replace('_', '-')}"


def namespace_path(deployment_id: str) -> str:
    return f"/api/v1/namespaces/{namespace_of(deployment_id)}"


def service_path(deployment_id: str) -> str:
    return f"{namespace_path(deployment_id)}/services/{NAME}"


def deployment_path(deployment_id: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace_of(deployment_id)}/deployments/{NAME}"


def cluster_url(deployment_id: str) -> str:
    """Where pods of the same cluster reach the engine."""
    return f"http://{NAME}.{namespace_of(deployment_id)}.svc.cluster.local:{PORT}"


def manifests(workload: Workload) -> list[Obj]:
    """All objects in the order of their application."""
    parts = (_namespace, _service_account, _model, _network_policy, _service, _disruption_budget, _deployment)
    return [part(workload) for part in parts]


def scaled_to_zero(workload: Workload) -> Obj:
    """The one object that differs while a deployment sleeps."""
    return _deployment(workload.model_copy(update={"replicas": 0}))


def labels_of(workload: Workload) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": workload.engine,
        "app.kubernetes.io/instance": workload.deployment_name,
        "app.kubernetes.io/component": NAME,
        _MANAGED_BY: "foundry",
        "foundry.dev/engine": workload.engine,
        "foundry.dev/deployment": workload.deployment_id,
        "foundry.dev/project": workload.project_id,
        "foundry.dev/model": workload.model_id,
    }


def is_ours(namespace: Obj, deployment_id: str) -> bool:
    """Whether a namespace was made for this deployment, so that deleting it takes nothing of anybody else's."""
    labels = namespace["metadata"].get("labels") or {}
    return labels.get(_MANAGED_BY) == "foundry" and labels.get("foundry.dev/deployment") == deployment_id


def _selector(workload: Workload) -> dict[str, str]:
    return {"foundry.dev/deployment": workload.deployment_id, "app.kubernetes.io/component": NAME}


def _object(api: str, kind: str, workload: Workload, spec: Obj | None = None) -> Obj:
    metadata = {"name": NAME, "namespace": namespace_of(workload.deployment_id), "labels": labels_of(workload)}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **({"spec": spec} if spec is not None else {})}


def _namespace(workload: Workload) -> Obj:
    """Pods may not run privileged; ``baseline`` is what engine images, which run as root, pass."""
    labels = {**labels_of(workload), "pod-security.kubernetes.io/enforce": "baseline"}
    metadata = {"name": namespace_of(workload.deployment_id), "labels": labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def _service_account(workload: Workload) -> Obj:
    return {**_object("v1", "ServiceAccount", workload), "automountServiceAccountToken": False}


def _model(workload: Workload) -> Obj:
    """What the plan was made for, beside what runs it."""
    return {**_object("v1", "ConfigMap", workload), "data": {"config.json": json.dumps(workload.model_config_json)}}


def _network_policy(workload: Workload) -> Obj:
    """In: gateways, and the konnectivity agents of ``kube-system`` that carry the API server's proxy. Out: anywhere,
    since weights are fetched from a model hub."""
    peers = [
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "foundry-gateway"}}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}},
    ]
    ingress = [{"from": peers, "ports": [{"protocol": "TCP", "port": PORT}]}]
    spec = {"podSelector": {"matchLabels": _selector(workload)}, "policyTypes": ["Ingress"], "ingress": ingress}
    return _object("networking.k8s.io/v1", "NetworkPolicy", workload, spec)


def _service(workload: Workload) -> Obj:
    ports = [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}]
    return _object("v1", "Service", workload, {"selector": _selector(workload), "ports": ports})


def _disruption_budget(workload: Workload) -> Obj:
    """A drained node takes at most one replica at a time."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": _selector(workload)}}
    return _object("policy/v1", "PodDisruptionBudget", workload, spec)


def _deployment(workload: Workload) -> Obj:
    metadata = {"labels": labels_of(workload), "annotations": {"foundry.dev/architecture-configmap": NAME}}
    template = {"metadata": metadata, "spec": _pod(workload)}
    spec = {
        "replicas": workload.replicas,
        "selector": {"matchLabels": _selector(workload)},
        # A second copy of the weights would need GPUs that are not reserved.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        "progressDeadlineSeconds": _STARTUP_PERIOD_S * _STARTUP_FAILURES,
        "template": template,
    }
    return _object("apps/v1", "Deployment", workload, spec)


def _pod(workload: Workload) -> Obj:
    return {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": workload.node_selector,
        "tolerations": workload.tolerations,
        "terminationGracePeriodSeconds": workload.drain_s + 10,
        "containers": [_container(workload)],
        "volumes": [
            # NCCL and tensor parallelism share tensors through /dev/shm, which is 64 MiB unless said otherwise.
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
            {"name": "cache", "emptyDir": {}},
        ],
    }


def _container(workload: Workload) -> Obj:
    return {
        "name": NAME,
        "image": workload.image,
        "command": workload.command,
        "env": [{"name": "HF_HOME", "value": _CACHE_PATH}],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": _resources(workload),
        "startupProbe": _probe(workload, _STARTUP_PERIOD_S, _STARTUP_FAILURES),
        "readinessProbe": _probe(workload, 5, 3),
        "livenessProbe": _probe(workload, 10, 6),
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            {"name": "cache", "mountPath": _CACHE_PATH},
        ],
    }


def _resources(workload: Workload) -> Obj:
    """GPUs must be equal in requests and limits; CPU and memory are floors, so that a pod is not starved."""
    gpus = {workload.gpu_resource: str(workload.gpus_per_replica)}
    requests = {"cpu": str(2 * workload.gpus_per_replica), "memory": f"{8 * workload.gpus_per_replica}Gi"}
    return {"requests": {**requests, **gpus}, "limits": gpus}


def _probe(workload: Workload, period_s: int, failures: int) -> Obj:
    request = {"path": workload.health_path, "port": "http"}
    return {"httpGet": request, "periodSeconds": period_s, "timeoutSeconds": 5, "failureThreshold": failures}
