"""Steps of the cluster and deployment flows. Each may run twice with the same input; names as in statemachines/."""

import time
from collections.abc import Callable

from foundry_core.clock import now_ms
from foundry_core.errors import NotFound, TransientError
from foundry_core.logs import logger
from foundry_core.runs import Run, RunError, StepStatus
from foundry_core.tasks import Output, RunCancelled, TaskContext, Tasks, describe, waiting
from foundry_sim.architecture import from_config

from functions.cluster import addons, engine, manifests, pods, secrets
from functions.cluster.errors import (
    AddonsFailed,
    ClusterUnreachable,
    EngineFailed,
    InsufficientCapacity,
    ManifestRejected,
)
from functions.cluster.kube import Kube
from functions.cluster.kubeconfig import Credentials
from functions.cluster.nodes import grouped, node_of
from functions.cluster.schemas import Deployment, Node
from functions.cluster.services import clusters, deployments
from functions.cluster.store import clusters as cluster_store
from functions.cluster.store import deployments as deployment_store

tasks = Tasks("cluster")
_DRAIN_S = 30
_LOCAL_URL = "foundry.dev/local-url"


def kube_of(cluster_id: str) -> Kube:
    """The cluster's API, with the credentials opened for this call only."""
    opened = secrets.unseal(cluster_store.load_secret(cluster_id), clusters.binding(cluster_id))
    return Kube(Credentials.model_validate_json(opened))


@tasks.task("connect")
def connect(context: TaskContext) -> Output:
    """Once, without back-off: a person waits for the answer."""
    cluster_id = context.run.subject_id
    try:
        version = kube_of(cluster_id).version()
    except TransientError as error:
        raise ClusterUnreachable(error.detail) from error
    clusters.begin_registration(cluster_id, version)
    return {"detail": f"Kubernetes {version}"}


@tasks.task("discover_nodes")
def discover_nodes(context: TaskContext) -> Output:
    nodes = discover(context.run.subject_id)
    gpus = sum(node.gpu_count for node in nodes)
    return {"detail": f"{len(nodes)} nodes, {gpus} GPUs"}


def discover(cluster_id: str) -> list[Node]:
    """Read the nodes and keep them."""
    try:
        nodes, groups = grouped([node_of(obj) for obj in kube_of(cluster_id).items("/api/v1/nodes")])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        logger.exception("nodes", extra={"cluster_id": cluster_id})
        raise ClusterUnreachable("The cluster describes its nodes in a way that Kubernetes does not.") from error
    clusters.keep_nodes(cluster_id, nodes, groups)
    return nodes


@tasks.task("install_addons")
def install_addons(context: TaskContext) -> Output:
    """Nothing to do where every GPU says what it is."""
    cluster_id = context.run.subject_id
    lacking = addons.missing(cluster_store.nodes(cluster_id))
    if not lacking:
        return {"detail": "All GPUs are announced; nothing to install."}
    kube = kube_of(cluster_id)
    for manifest in addons.manifests(_job(context.run)):
        kube.apply(manifest)
    return {"detail": f"Installing the GPU operator for {len(lacking)} node(s)."}


def _job(run: Run) -> str:
    return addons.job_name(run.id, run.attempt)


@tasks.task("addons_ready")
def addons_ready(context: TaskContext) -> Output:
    cluster_id = context.run.subject_id
    if not addons.missing(cluster_store.nodes(cluster_id)):
        return {"status": "ready"}
    outcome, message = addons.outcome(kube_of(cluster_id).get(addons.job_path(_job(context.run))))
    if outcome == "failed":
        raise AddonsFailed(f"The GPU operator could not be installed: {message}",
                           next_action="kubectl -n foundry-system logs -l foundry.dev/component=addons")  # fmt: skip
    if outcome == "absent":
        raise AddonsFailed("The Job that installs the GPU operator is gone.", next_action="Retry the run.")
    if outcome == "complete":
        lacking = addons.missing(discover(cluster_id))
        return waiting(f"{len(lacking)} node(s) are not announced yet") if lacking else {"status": "ready"}
    return waiting("The GPU operator is being installed")


@tasks.task("mark_ready")
def mark_ready(context: TaskContext) -> Output:
    return _deployment_ready(context) if context.run.kind == "deploy_model" else _cluster_ready(context)


def _cluster_ready(context: TaskContext) -> Output:
    cluster = clusters.mark_ready(context.run.subject_id)
    return {"cluster_id": cluster.id, "node_count": cluster.node_count, "gpu_count": cluster.gpu_count}


def _deployment_ready(context: TaskContext) -> Output:
    deployment = _deployment(context)
    endpoint_id = (context.input.get("publish_endpoint") or {}).get("output", {}).get("endpoint_id")
    source = (context.input.get("wait_ready") or {}).get("output", {}).get("source", "live")
    deployments.mark_ready(deployment, endpoint_id, source)
    return {"deployment_id": deployment.id, "endpoint_id": endpoint_id, "endpoint_name": deployment.name}


@tasks.task("mark_failed")
def mark_failed(context: TaskContext) -> Output:
    run, reason = context.run, _reason(context)
    if run.kind == "register_cluster":
        clusters.mark_failed(run.subject_id, reason)
    else:
        deployments.mark_failed(run.project_id or "", run.subject_id, reason)
    return {}


def _reason(context: TaskContext) -> RunError:
    """Why the flow failed: its failed step says it best; a poll that gave up has only the flow's sentence."""
    if context.run.cancel_requested:
        return describe(RunCancelled("The run was cancelled."))
    failed = [step.error for step in context.run.steps if step.status == StepStatus.FAILED and step.error]
    if failed:
        return failed[0]
    caught = context.input.get("error") or {}
    cause = str(caught.get("Cause", ""))
    detail = "Something failed on our side; the fault has been logged." if cause.startswith("{") else cause
    return RunError(
        code="flow_failed", detail=detail or str(caught.get("Error", "unknown")), next_action="Retry the run."
    )


def _deployment(context: TaskContext) -> Deployment:
    return deployments.load(context.run.project_id or "", context.run.subject_id)


@tasks.task("admit")
def admit(context: TaskContext) -> Output:
    """Reserve the GPUs by what is known of the nodes, looking at the cluster again before refusing."""
    run = context.run
    deployment = deployments.begin(run.project_id or "", run.subject_id)
    spec = deployment_store.load_spec(deployment.project_id, deployment.id)
    try:
        deployments.reserve(deployment, spec, cluster_store.nodes(deployment.cluster_id))
    except InsufficientCapacity:
        deployments.reserve(deployment, spec, discover(deployment.cluster_id))
    return {
        "deployment_id": deployment.id, "project_id": deployment.project_id, "cluster_id": deployment.cluster_id,
        "model_id": deployment.model_id, "endpoint_name": deployment.name, "model": deployment.name,
        "price": deployment.price.model_dump(), "max_output_tokens": spec.plan.limits.max_model_len,
    }  # fmt: skip


@tasks.task("apply_manifests")
def apply_manifests(context: TaskContext) -> Output:
    deployment = _deployment(context)
    kube = kube_of(deployment.cluster_id)
    namespace = kube.get(manifests.namespace_path(deployment.id))
    if namespace and "deletionTimestamp" in namespace["metadata"]:
        raise TransientError("The namespace of an earlier attempt is still being removed.")
    spec = deployment_store.load_spec(deployment.project_id, deployment.id)
    objects = manifests.manifests(deployments.workload_of(deployment, spec))
    for manifest in objects:
        kube.apply(manifest)
    return {"detail": f"{len(objects)} objects applied"}


@tasks.task("wait_ready")
def wait_ready(context: TaskContext) -> Output:
    deployment = _deployment(context)
    kube = kube_of(deployment.cluster_id)
    root = f"/namespaces/{manifests.namespace_of(deployment.id)}"
    shown = kube.get(f"/apis/apps/v1{root}/deployments/{manifests.NAME}")
    found = list(kube.items(f"/api/v1{root}/pods", f"foundry.dev/deployment={deployment.id}"))
    progress = pods.progress_of(shown, found, now_ms())
    if progress.status == "unschedulable":
        raise InsufficientCapacity(progress.detail, next_action="Free GPUs or add nodes, then retry the run.")
    if progress.status == "failed":
        raise EngineFailed(progress.detail, next_action="Mend the cause, then retry the run.")
    if progress.status == "waiting":
        return waiting(progress.detail, progress.ready / deployment.replicas)
    return {"status": "ready", "detail": progress.detail, **_upstreams(kube, deployment)}


def _upstreams(kube: Kube, deployment: Deployment) -> Output:
    """Where a gateway reaches the engine, and what it says it is."""
    path = manifests.service_path(deployment.id)
    service = kube.get(path) or {"metadata": {}}
    local = (service["metadata"].get("annotations") or {}).get(_LOCAL_URL)
    source = engine.source(kube, _engine_service(deployment))
    return {"upstreams": [local or manifests.cluster_url(deployment.id)], "source": source}


def _engine_service(deployment: Deployment) -> str:
    return f"{manifests.service_path(deployment.id)}:http"


@tasks.task("verify")
def verify(context: TaskContext) -> Output:
    """One real question; what it measured is announced."""
    deployment = _deployment(context)
    kube, service = kube_of(deployment.cluster_id), _engine_service(deployment)
    answer = engine.ask(kube, service, deployment.name, embeds=_embeds(deployment))
    measured = {
        "ttft_ms": answer.ttft_ms, "tpot_ms": answer.tpot_ms, "e2e_ms": answer.e2e_ms,
        "output_tokens": answer.output_tokens, "source": "verification",
    }  # fmt: skip
    deployments.note_verification(deployment, measured)
    return {"detail": f"first token after {answer.ttft_ms:.0f} ms", **measured}


def _embeds(deployment: Deployment) -> bool:
    model = deployment_store.load_spec(deployment.project_id, deployment.id).model
    return from_config(model.config, model.name).task == "embed"


@tasks.task("drain")
def drain(context: TaskContext) -> Output:
    """Wait until the engine is idle, at most ``_DRAIN_S``. What is unreachable or gone has nothing to finish."""
    try:
        deployment = _deployment(context)
    except NotFound:
        return {}
    kube = _kube_or_none(deployment)
    if kube is None or kube.get(manifests.service_path(deployment.id)) is None:
        return {"detail": "Nothing is running."}
    left = drained(lambda: _in_flight(kube, deployment), time.sleep)
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
        return engine.requests_in_flight(kube, _engine_service(deployment))
    except (TransientError, ManifestRejected, ValueError) as error:  # an engine that is gone finishes nothing
        logger.warning("engine metrics", extra={"deployment_id": deployment.id, "reason": str(error)})
        return 0


@tasks.task("remove_manifests", undoes=("apply_manifests", "wait_ready", "verify", "admit"))
def remove_manifests(context: TaskContext) -> Output:
    """Delete the namespace and give the GPUs back. As compensation pods get no time to finish: nobody uses them."""
    try:
        deployment = _deployment(context)
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
        deployment = _deployment(context)
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
