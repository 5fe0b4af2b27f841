"""Life of a cluster: registering → ready or failed; changed, discovered again, given up."""

from collections.abc import Callable

from foundry_core import runs
from foundry_core.clock import now_ms
from foundry_core.errors import Conflict, Invalid, NotFound, PreconditionFailed
from foundry_core.events import Event, new_event
from foundry_core.ids import new_id
from foundry_core.runs import Run, RunError

from functions.cluster import kubeconfig
from functions.cluster.kubeconfig import Credentials
from functions.cluster.schemas import (
    Cluster,
    ClusterChange,
    ClusterCreate,
    ClusterStatus,
    DeviceGroup,
    Node,
)
from functions.cluster.store import clusters as store

Seal = Callable[[str, dict[str, str]], dict[str, str]]
Reach = Callable[[Credentials], object]  # raises when it cannot

page_of = store.page_of
node_page = store.node_page

_NEXT: dict[ClusterStatus, set[ClusterStatus]] = {
    ClusterStatus.REGISTERING: set(ClusterStatus),
    ClusterStatus.READY: {ClusterStatus.READY, ClusterStatus.REGISTERING},
    ClusterStatus.FAILED: {ClusterStatus.FAILED, ClusterStatus.REGISTERING},
}


def switch_status(cluster: Cluster, status: ClusterStatus) -> Event | None:
    """The one place where a cluster's status changes; returns the event, or None when nothing changed."""
    if status not in _NEXT[cluster.status]:
        raise Conflict(f"A cluster that is {cluster.status} cannot become {status}.", code="cluster_state")
    if status == cluster.status:
        return None
    cluster.status = status
    data = {"cluster_id": cluster.id, "name": cluster.name, "status": status, "gpu_count": cluster.gpu_count}
    return new_event(f"foundry.cluster.{status}.v1", source="cluster", subject=cluster.id, data=data)


def register(request: ClusterCreate, user_id: str, seal: Seal) -> tuple[Cluster, Run]:
    """Raises ``KubeconfigInvalid`` and ``Conflict`` (``name_taken``)."""
    credentials = kubeconfig.parse(request.kubeconfig)
    cluster = Cluster(
        id=new_id("cls"), name=request.name, kind=request.kind, description=request.description,
        status=ClusterStatus.REGISTERING, server=credentials.server, created_by=user_id, created_at_ms=now_ms(),
    )  # fmt: skip
    secret = seal(credentials.model_dump_json(), binding(cluster.id))
    data = {"cluster_id": cluster.id, "name": cluster.name, "created_by": user_id}
    event = new_event("foundry.cluster.created.v1", source="cluster", subject=cluster.id, data=data)
    store.insert(cluster, secret, event)
    return _start_registration(cluster.id, user_id)


def binding(cluster_id: str) -> dict[str, str]:
    """What a sealed kubeconfig is bound to: it cannot be opened as another cluster's."""
    return {"purpose": "kubeconfig", "cluster_id": cluster_id}


def _start_registration(cluster_id: str, user_id: str) -> tuple[Cluster, Run]:
    run = runs.create("register_cluster", subject_id=cluster_id, created_by=user_id)

    def note(cluster: Cluster) -> None:
        cluster.run_id = run.id

    return get(store.update(cluster_id, note).id), run


def get(cluster_id: str) -> Cluster:
    """The cluster with the GPUs that deployments hold now."""
    cluster = store.load(cluster_id)
    held = store.reservations(cluster_id)
    cluster.gpus_reserved = sum(sum(one.pod_gpus) for one in held.values())
    return cluster


def change(
    cluster_id: str, request: ClusterChange, user_id: str, seal: Seal, reach: Reach, version: int | None
) -> Cluster:
    """``version`` is the one that the client means, None for any. A new kubeconfig takes the place of the one that
    works only when the cluster was reached with it. Raises ``PreconditionFailed`` and what ``reach`` and ``register``
    raise."""
    credentials = kubeconfig.parse(request.kubeconfig) if request.kubeconfig else None
    if credentials:
        _refuse_reconnect(store.load(cluster_id), credentials)
        reach(credentials)
    secret = seal(credentials.model_dump_json(), binding(cluster_id)) if credentials else None

    def apply(cluster: Cluster) -> Event | None:
        if version not in {None, cluster.version}:
            raise PreconditionFailed("The cluster was changed since you read it.", next_action="Read it again.")
        _describe(cluster, request)
        return _reconnect(cluster, credentials) if credentials else None

    store.update(cluster_id, apply, secret=secret)
    return _start_registration(cluster_id, user_id)[0] if credentials else get(cluster_id)


def _describe(cluster: Cluster, request: ClusterChange) -> None:
    cluster.name = request.name or cluster.name
    cluster.description = cluster.description if request.description is None else request.description
    groups = {group.name: group for group in cluster.device_groups}
    for name, price in (request.prices_nanos_per_hour or {}).items():
        if name not in groups:
            raise Invalid(f"Cluster {cluster.name} has no device group {name}.", code="unknown_device_group")
        groups[name].price_nanos_per_hour = price


def _refuse_reconnect(cluster: Cluster, credentials: Credentials) -> None:
    _refuse_busy(cluster)
    if credentials.server != cluster.server and store.reservations(cluster.id):
        raise Conflict(f"Deployments belong to cluster {cluster.name}; this kubeconfig is for another server.",
                       code="cluster_in_use",
                       next_action="Delete them first, or register the other cluster under a name of its own.",
                       )  # fmt: skip


def _reconnect(cluster: Cluster, credentials: Credentials) -> Event | None:
    _refuse_reconnect(cluster, credentials)
    cluster.server = credentials.server
    return switch_status(cluster, ClusterStatus.REGISTERING)


def delete(cluster_id: str, user_id: str, *, abandon: bool = False) -> None:
    """Nothing inside the cluster is touched. ``Conflict`` while it is being registered, or deployments hold GPUs and it
    is not to be abandoned."""
    cluster = store.load(cluster_id)
    _refuse_busy(cluster)
    data = {"cluster_id": cluster.id, "name": cluster.name, "deleted_by": user_id, "abandoned": abandon}
    event = new_event("foundry.cluster.deleted.v1", source="cluster", subject=cluster.id, data=data)
    store.delete(cluster, event, abandon=abandon)


def _refuse_busy(cluster: Cluster) -> None:
    if cluster.status == ClusterStatus.REGISTERING and run_is_open(cluster.run_id):
        raise Conflict(f"Cluster {cluster.name} is being registered by run {cluster.run_id}.", code="cluster_busy",
                       next_action="Wait for the run to end, or cancel it.")  # fmt: skip


def run_is_open(run_id: str | None) -> bool:
    """Whether a run is still at work; no run is none."""
    try:
        return run_id is not None and not runs.get(run_id).status.ended
    except NotFound:
        return False


def begin_registration(cluster_id: str, kubernetes_version: str) -> None:
    def apply(cluster: Cluster) -> Event | None:
        cluster.kubernetes_version, cluster.error = kubernetes_version, None
        return switch_status(cluster, ClusterStatus.REGISTERING)

    store.update(cluster_id, apply)


def keep_nodes(cluster_id: str, nodes: list[Node], groups: list[DeviceGroup]) -> Cluster:
    """Replace what is known of the nodes."""
    store.replace_nodes(cluster_id, nodes)

    def apply(cluster: Cluster) -> None:
        prices = {group.name: group.price_nanos_per_hour for group in cluster.device_groups}
        for group in groups:
            group.price_nanos_per_hour = prices.get(group.name)
        cluster.device_groups, cluster.node_count = groups, len(nodes)
        cluster.gpu_count = sum(group.devices for group in groups)

    return store.update(cluster_id, apply)


def mark_ready(cluster_id: str) -> Cluster:
    return store.update(cluster_id, lambda cluster: switch_status(cluster, ClusterStatus.READY))


def mark_failed(cluster_id: str, error: RunError) -> None:
    def apply(cluster: Cluster) -> Event | None:
        cluster.error = error
        return switch_status(cluster, ClusterStatus.FAILED)

    try:
        store.update(cluster_id, apply)
    except NotFound:
        return  # given up meanwhile
