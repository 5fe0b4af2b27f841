"""Steps of ``delete_deployment``, of which ``remove_manifests`` is also the compensation of ``deploy_model``."""

import time
from collections.abc import Callable

from foundry_core.errors import NotFound, TransientError
from foundry_core.logs import logger
from foundry_core.tasks import Output, TaskContext, waiting

from functions.cluster import engine, manifests
from functions.cluster.errors import ClusterUnreachable, ManifestRejected
from functions.cluster.kube import Kube
from functions.cluster.schemas import Deployment
from functions.cluster.services import deployments
from functions.cluster.tasks.base import deployment_of, engine_service, kube_of, tasks

_DRAIN_S = 30


@tasks.task("drain")
def drain(context: TaskContext) -> Output:
    """Wait until the engine is idle, at most ``_DRAIN_S``. What is unreachable or gone has nothing to finish."""
    try:
        deployment = deployment_of(context)
    except NotFound:
        return {}
    kube = _kube_or_none(deployment)
    try:
        if kube is None or kube.get(manifests.service_path(deployment.id)) is None:
            return {"detail": "Nothing is running."}
        left = drained(lambda: _in_flight(kube, deployment), time.sleep)
    except ClusterUnreachable as error:
        return {"detail": error.detail}
    return {"detail": f"{left} request(s) were still running after {_DRAIN_S} s" if left else "No request is running."}


def drained(in_flight: Callable[[], int], sleep: Callable[[float], None]) -> int:
    """Requests still in flight at the end. Two idle looks in a row, since a gateway learns of the withdrawal late."""
    idle, left = 0, 0
    for _ in range(_DRAIN_S):
        left = in_flight()
        idle = idle + 1 if left == 0 else 0
        if idle == 3:
            break
        sleep(1)
    return left


def _in_flight(kube: Kube, deployment: Deployment) -> int:
    try:
        return engine.requests_in_flight(kube, engine_service(deployment))
    except (TransientError, ManifestRejected, ValueError) as error:  # an engine that is gone finishes nothing
        logger.warning("engine metrics", extra={"deployment_id": deployment.id, "reason": str(error)})
        return 0


@tasks.task("remove_manifests", undoes=("apply_manifests", "wait_ready", "verify", "admit"))
def remove_manifests(context: TaskContext) -> Output:
    """Delete the namespace and give the GPUs back. As compensation pods get no time to finish: nobody uses them."""
    try:
        deployment = deployment_of(context)
    except NotFound:
        return {}
    kube = _kube_or_none(deployment)
    path = manifests.namespace_path(deployment.id)
    namespace = kube.get(path) if kube else None
    if kube and namespace and manifests.is_ours(namespace, deployment.id):
        if "error" in context.input:
            _kill(kube, deployment)
        kube.delete(path)
    deployments.release(deployment)
    return {}


def _kube_or_none(deployment: Deployment) -> Kube | None:
    """None when the cluster was given up: there is nothing that we could reach."""
    try:
        return kube_of(deployment.cluster_id)
    except NotFound:
        return None


def _kill(kube: Kube, deployment: Deployment) -> None:
    root = f"/namespaces/{manifests.namespace_of(deployment.id)}"
    kube.delete(f"/apis/apps/v1{root}/deployments/{manifests.NAME}")
    for pod in kube.items(f"/api/v1{root}/pods"):
        kube.delete(f"/api/v1{root}/pods/{pod['metadata']['name']}", grace_s=0)


@tasks.task("wait_removed")
def wait_removed(context: TaskContext) -> Output:
    try:
        deployment = deployment_of(context)
    except NotFound:
        return {"status": "removed"}
    kube = _kube_or_none(deployment)
    if kube is None or kube.get(manifests.namespace_path(deployment.id)) is None:
        return {"status": "removed"}
    return waiting("Pods are ending")


@tasks.task("mark_deleted")
def mark_deleted(context: TaskContext) -> Output:
    deployments.mark_deleted(context.run.project_id or "", context.run.subject_id)
    return {"deployment_id": context.run.subject_id}
