"""Life of a deployment: pending → deploying → ready or failed → deleting → gone. How it sleeps is in ``sleep``."""

from collections.abc import Callable
from typing import Any

from foundry_core import runs
from foundry_core.clock import now_ms
from foundry_core.errors import Conflict, Invalid, NotFound, PreconditionFailed
from foundry_core.events import Event, new_event
from foundry_core.ids import new_id
from foundry_core.runs import Run, RunError

from functions.cluster import plans
from functions.cluster.capacity import Reservation, admits
from functions.cluster.errors import InsufficientCapacity
from functions.cluster.manifests import Workload
from functions.cluster.schemas import (
    Cluster,
    ClusterStatus,
    Deployment,
    DeploymentChange,
    DeploymentCreate,
    DeploymentDetail,
    DeploymentStatus,
    DeviceGroup,
    Node,
    Spec,
)
from functions.cluster.services.clusters import run_is_open
from functions.cluster.store import clusters as cluster_store
from functions.cluster.store import deployments as store
from functions.cluster.store.clusters import Reservations

page_of = store.page_of
load = store.load

_NEXT: dict[DeploymentStatus, set[DeploymentStatus]] = {
    DeploymentStatus.PENDING: {DeploymentStatus.DEPLOYING, DeploymentStatus.FAILED, DeploymentStatus.DELETING},
    DeploymentStatus.DEPLOYING: {DeploymentStatus.READY, DeploymentStatus.FAILED, DeploymentStatus.DELETING},
    DeploymentStatus.READY: {DeploymentStatus.SLEEPING, DeploymentStatus.DELETING, DeploymentStatus.FAILED},
    DeploymentStatus.SLEEPING: {DeploymentStatus.ASLEEP, DeploymentStatus.WAKING, DeploymentStatus.DELETING},
    DeploymentStatus.ASLEEP: {DeploymentStatus.WAKING, DeploymentStatus.DELETING},
    DeploymentStatus.WAKING: {DeploymentStatus.READY, DeploymentStatus.ASLEEP, DeploymentStatus.DELETING},
    DeploymentStatus.FAILED: {DeploymentStatus.DEPLOYING, DeploymentStatus.DELETING},
    DeploymentStatus.DELETING: set(),
}


def switch_status(deployment: Deployment, status: DeploymentStatus, **data: Any) -> Event | None:
    """The one place where a deployment's status changes; returns the event, or None when nothing changed."""
    if status == deployment.status:
        return None
    if status not in _NEXT[deployment.status]:
        raise Conflict(f"A deployment that is {deployment.status} cannot become {status}.", code="deployment_state")
    deployment.status = status
    return _event(deployment, status, **data)


def _event(deployment: Deployment, what: str, **data: Any) -> Event:
    facts = {
        "project_id": deployment.project_id, "deployment_id": deployment.id, "cluster_id": deployment.cluster_id,
        "model_id": deployment.model_id, "endpoint_name": deployment.name,
    }  # fmt: skip
    name = f"foundry.deployment.{what}.v1"
    return new_event(name, source="cluster", subject=deployment.id, data={**facts, **data})


def create(project_id: str, request: DeploymentCreate, user_id: str) -> tuple[Deployment, Run]:
    """Raises ``Invalid`` for a plan that cannot be deployed, ``Conflict`` (``name_taken``, ``cluster_not_ready``)."""
    cluster = cluster_store.load(request.cluster_id)
    group = _group(cluster, request.plan.device_group)
    checked = plans.check(request.plan, request.model, group, request.name)
    plan = checked.plan
    deployment = Deployment(
        id=new_id("dep"), project_id=project_id, name=request.name, description=request.description,
        status=DeploymentStatus.PENDING, cluster_id=cluster.id, device_group=group.name, model_id=request.model.id,
        model_name=request.model.name, simulation_id=request.simulation_id, engine=plan.engine,
        replicas=plan.replicas, devices=plan.devices, cost_nanos_per_hour=plan.cost_nanos_per_hour,
        price=checked.price, created_by=user_id, created_at_ms=now_ms(),
    )  # fmt: skip
    spec = Spec(model=request.model, plan=plan, command=checked.command)
    store.insert(deployment, spec, _event(deployment, "created", created_by=user_id))
    return _start("deploy_model", deployment, user_id)


def _group(cluster: Cluster, name: str) -> DeviceGroup:
    if cluster.status != ClusterStatus.READY:
        raise Conflict(f"Cluster {cluster.name} is {cluster.status}.", code="cluster_not_ready",
                       next_action="Wait until its registration has succeeded.")  # fmt: skip
    found = next((group for group in cluster.device_groups if group.name == name), None)
    if found is None:
        names = ", ".join(group.name for group in cluster.device_groups) or "none"
        raise Invalid(f"Cluster {cluster.name} has no device group {name[:120]}; it has {names}.",
                      code="plan_outdated", next_action="Simulate again on the cluster as it is now.")  # fmt: skip
    return found


def _start(kind: str, deployment: Deployment, user_id: str) -> tuple[Deployment, Run]:
    run = runs.create(kind, subject_id=deployment.id, created_by=user_id, project_id=deployment.project_id)

    def note(deployment: Deployment) -> None:
        deployment.run_id = run.id

    try:
        return store.update(deployment.project_id, deployment.id, note), run
    except NotFound:  # a removal that has ended already
        return deployment, run


def get(project_id: str, deployment_id: str) -> DeploymentDetail:
    deployment = store.load(project_id, deployment_id)
    return DeploymentDetail(**deployment.model_dump(), plan=store.load_spec(project_id, deployment_id).plan)


def change(project_id: str, deployment_id: str, request: DeploymentChange, version: int | None) -> DeploymentDetail:
    """``version`` is the one that the client means, None for any. Raises ``PreconditionFailed``."""

    def apply(deployment: Deployment) -> None:
        if version not in {None, deployment.version}:
            raise PreconditionFailed("The deployment was changed since you read it.", next_action="Read it again.")
        deployment.description = request.description

    store.update(project_id, deployment_id, apply)
    return get(project_id, deployment_id)


def delete(project_id: str, deployment_id: str, user_id: str) -> tuple[Deployment, Run]:
    """Start the removal. ``Conflict`` while another run works on the deployment."""

    def begin(deployment: Deployment) -> Event | None:
        refuse_busy(deployment)
        return switch_status(deployment, DeploymentStatus.DELETING, deleted_by=user_id)

    return _start("delete_deployment", store.update(project_id, deployment_id, begin), user_id)


def refuse_busy(deployment: Deployment) -> None:
    if run_is_open(deployment.run_id):
        raise Conflict(f"Run {deployment.run_id} is at work on this deployment.", code="deployment_busy",
                       next_action="Wait for the run to end, or cancel it.")  # fmt: skip


def begin(project_id: str, deployment_id: str) -> Deployment:
    """A deploy run has started, or started again."""

    def apply(deployment: Deployment) -> Event | None:
        deployment.error = None
        return switch_status(deployment, DeploymentStatus.DEPLOYING)

    return store.update(project_id, deployment_id, apply)


def reserve(deployment: Deployment, spec: Spec, nodes: list[Node]) -> None:
    """Promise the plan's GPUs to this deployment, once. Raises ``InsufficientCapacity``."""
    plan = spec.plan
    wanted = Reservation(group=plan.device_group, pod_gpus=[plan.tp * plan.pp * plan.dp] * plan.replicas)
    free = [node.gpu_count for node in nodes if node.group == plan.device_group and node.usable]

    def add(held: Reservations) -> None:
        others = [one for owner, one in held.items() if owner != deployment.id]
        if not admits(free, others, wanted):
            raise _no_room(deployment, wanted, free, others)
        held[deployment.id] = wanted

    cluster_store.reserve(deployment.cluster_id, add)


def _no_room(
    deployment: Deployment, wanted: Reservation, free: list[int], others: list[Reservation]
) -> InsufficientCapacity:
    taken = sum(sum(one.pod_gpus) for one in others if one.group == wanted.group)
    detail = (
        f"{len(wanted.pod_gpus)} replica(s) of {wanted.pod_gpus[0]} GPU(s) do not fit device group {wanted.group}: "
        f"{sum(free) - taken} of {sum(free)} GPUs on {len(free)} ready node(s) are free."
    )
    advice = f"Delete a deployment on cluster {deployment.cluster_id}, add nodes, or choose a smaller plan."
    return InsufficientCapacity(detail, next_action=advice)


def release(deployment: Deployment) -> None:
    def drop(held: Reservations) -> None:
        held.pop(deployment.id, None)

    _give_back(deployment, drop)


def release_gpus(deployment: Deployment) -> None:
    """It sleeps: others may have its GPUs, but the cluster is not given up while it is there."""

    def empty(held: Reservations) -> None:
        held[deployment.id] = Reservation(group=deployment.device_group, pod_gpus=[])

    _give_back(deployment, empty)


def _give_back(deployment: Deployment, change: Callable[[Reservations], None]) -> None:
    try:
        cluster_store.reserve(deployment.cluster_id, change)
    except NotFound:
        return  # the cluster is gone, and its reservations with it


def workload_of(deployment: Deployment, spec: Spec) -> Workload:
    """What the manifests are made from; the nodes are chosen by the device group as it is now."""
    group = _group(cluster_store.load(deployment.cluster_id), deployment.device_group)
    return Workload(
        deployment_id=deployment.id, deployment_name=deployment.name, project_id=deployment.project_id,
        model_id=deployment.model_id, engine=deployment.engine, image=plans.IMAGES[deployment.engine],
        command=spec.command, replicas=deployment.replicas,
        gpus_per_replica=deployment.devices // deployment.replicas, gpu_resource=group.gpu_resource,
        node_selector=group.node_selector, tolerations=group.tolerations, model_config_json=spec.model.config,
    )  # fmt: skip


def mark_ready(deployment: Deployment, endpoint_id: str | None, source: str) -> Deployment:
    spec = store.load_spec(deployment.project_id, deployment.id)

    def apply(current: Deployment) -> Event | None:
        current.endpoint_id, current.ready_at_ms, current.error = endpoint_id, now_ms(), None
        data = {"plan": spec.plan.model_dump(mode="json"), "price": current.price.model_dump(), "source": source,
                "cost_nanos_per_hour": current.cost_nanos_per_hour}  # fmt: skip
        return switch_status(current, DeploymentStatus.READY, **data)

    return store.update(deployment.project_id, deployment.id, apply)


def mark_failed(project_id: str, deployment_id: str, error: RunError) -> None:
    def apply(deployment: Deployment) -> Event | None:
        if deployment.status == DeploymentStatus.DELETING:
            return None  # it is being removed, which is the stronger wish
        deployment.error = error
        return switch_status(deployment, DeploymentStatus.FAILED, error=error.model_dump())

    try:
        store.update(project_id, deployment_id, apply)
    except NotFound:
        return


def note_verification(deployment: Deployment, measured: dict[str, Any]) -> None:
    """Announce what one real question measured."""
    store.update(deployment.project_id, deployment.id, lambda current: _event(current, "verified", **measured))


def mark_deleted(project_id: str, deployment_id: str) -> None:
    try:
        deployment = store.load(project_id, deployment_id)
        store.delete(project_id, deployment_id, _event(deployment, "deleted"))
    except NotFound:
        return
