"""The NVIDIA GPU operator, installed by a Job inside the cluster that runs Helm: pure manifests.

The operator brings the driver, the device plugin, Node and GPU Feature Discovery and the DCGM exporter.
"""

from collections.abc import Iterable
from typing import Any

from functions.cluster.schemas import Node

Obj = dict[str, Any]
NAMESPACE = "foundry-system"
_HELM_IMAGE = "docker.io/alpine/helm:3.18.4"
_CHART = {"name": "gpu-operator", "repository": "https://helm.ngc.nvidia.com/nvidia", "version": "v25.3.2"}
_LABELS = {"app.kubernetes.io/managed-by": "foundry", "foundry.dev/component": "addons"}
_TIMEOUT_S = 25 * 60


def missing(nodes: Iterable[Node]) -> list[Node]:
    """NVIDIA nodes that offer no GPU or do not say which: what the operator would mend."""
    return [node for node in nodes if node.nvidia and not (node.gpu_count and node.node_selector)]


def manifests(job: str) -> list[Obj]:
    """Namespace, service account, its right to install, and the Job, in the order of their application."""
    return [_namespace(), _service_account(), _binding(), _job(job)]


def job_name(run_id: str, attempt: int) -> str:
    """Each attempt has its own Job: one that failed cannot be applied again."""
    return f"install-gpu-operator-{run_id[-10:]}-{attempt}"


def job_path(job: str) -> str:
    return f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{job}"


def _metadata(name: str, namespaced: bool = True) -> Obj:
    return {"name": name, "labels": _LABELS, **({"namespace": NAMESPACE} if namespaced else {})}


def _namespace() -> Obj:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": _metadata(NAMESPACE, namespaced=False)}


def _service_account() -> Obj:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata("foundry-addons")}


def _binding() -> Obj:
    """Charts create cluster roles and definitions, which takes an administrator."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": _metadata("foundry-addons", namespaced=False),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "foundry-addons", "namespace": NAMESPACE}],
    }


def _job(name: str) -> Obj:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(name),
        "spec": {
            "backoffLimit": 2,
            "activeDeadlineSeconds": _TIMEOUT_S,
            "ttlSecondsAfterFinished": 24 * 3600,
            "template": {
                "metadata": {"labels": _LABELS},
                "spec": {
                    "serviceAccountName": "foundry-addons",
                    "restartPolicy": "Never",
                    "containers": [{"name": "helm", "image": _HELM_IMAGE, "args": _helm_arguments()}],
                },
            },
        },
    }


def _helm_arguments() -> list[str]:
    chart = [_CHART["name"], "--repo", _CHART["repository"], "--version", _CHART["version"]]
    namespace = ["--namespace", "gpu-operator", "--create-namespace"]
    return ["upgrade", "--install", "gpu-operator", *chart, *namespace, "--wait", "--timeout", "20m"]


def outcome(job: Obj | None) -> tuple[str, str]:
    """``("running" | "complete" | "failed" | "absent", message)`` of the Job as the API shows it."""
    if job is None:
        return "absent", ""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("status") == "True" and condition.get("type") in {"Complete", "Failed"}:
            return condition["type"].lower(), str(condition.get("message", ""))[:300]
    return "running", ""
