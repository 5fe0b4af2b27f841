"""Steps of ``deploy_model`` and ``wake_deployment``: reserve, apply, wait, ask."""

from urllib.parse import urlsplit

from foundry_core.clock import now_ms
from foundry_core.errors import TransientError
from foundry_core.runs import Run
from foundry_core.tasks import Output, TaskContext, waiting
from foundry_sim.facts.architecture import from_config

from functions.cluster import engine, manifests, pods
from functions.cluster.errors import EngineFailed, InsufficientCapacity
from functions.cluster.kube import Kube, Obj
from functions.cluster.kubeconfig import is_loopback
from functions.cluster.schemas import Deployment
from functions.cluster.services import deployments, sleep
from functions.cluster.store import clusters as cluster_store
from functions.cluster.store import deployments as deployment_store
from functions.cluster.tasks.base import deployment_of, engine_service, kube_of, tasks
from functions.cluster.tasks.clusters import discover

_LOCAL_URL = "foundry.dev/local-url"


@tasks.task("admit")
def admit(context: TaskContext) -> Output:
    """Reserve the GPUs by what is known of the nodes, looking at the cluster again before refusing."""
    deployment = _begin(context.run)
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


def _begin(run: Run) -> Deployment:
    project_id = run.project_id or ""
    if run.kind == "wake_deployment":
        return sleep.begin_wake(project_id, run.subject_id, run.id)
    return deployments.begin(project_id, run.subject_id)


@tasks.task("apply_manifests")
def apply_manifests(context: TaskContext) -> Output:
    deployment = deployment_of(context)
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
    deployment = deployment_of(context)
    kube = kube_of(deployment.cluster_id)
    shown = kube.get(manifests.deployment_path(deployment.id))
    pods_path = f"{manifests.namespace_path(deployment.id)}/pods"
    found = list(kube.items(pods_path, f"foundry.dev/deployment={deployment.id}"))
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
    source = engine.source(kube, engine_service(deployment))
    return {"upstreams": [local_url(service) or manifests.cluster_url(deployment.id)], "source": source}


def local_url(service: Obj) -> str | None:
    """Only an address on the gateway's own machine: a cluster must not send gateways anywhere else."""
    url = (service["metadata"].get("annotations") or {}).get(_LOCAL_URL, "")
    try:
        return url if is_loopback(urlsplit(url).hostname or "") else None
    except ValueError:
        return None


@tasks.task("verify")
def verify(context: TaskContext) -> Output:
    """One real question; what it measured is announced."""
    deployment = deployment_of(context)
    kube, service = kube_of(deployment.cluster_id), engine_service(deployment)
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
