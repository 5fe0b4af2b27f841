"""Clusters, their secrets, nodes and reservations."""

from collections.abc import Callable, Sequence
from typing import Any

from foundry_core.errors import Conflict, NotFound
from foundry_core.events import Event
from foundry_core.table import Item, conflicts, every, page, write

from functions.cluster.capacity import Reservation
from functions.cluster.schemas import Cluster, Node
from functions.cluster.store.tables import (
    STALE,
    ClusterItem,
    ClusterTable,
    KubeconfigItem,
    NodeItem,
    ReservationsItem,
    claim,
    claimed,
    data_of,
    outbox,
    until_written,
)

_ALL = "CLUSTERS"
_FIRST = (
    "Delete them first: foundry deployments delete NAME. "
    "A cluster that is gone for good: foundry clusters remove CLUSTER --abandon."
)
Reservations = dict[str, Reservation]
Secret = dict[str, str]


def insert(cluster: Cluster, secret: Secret, event: Event) -> Cluster:
    """``Conflict`` with code ``name_taken`` when the name belongs to another cluster."""
    pk = f"CLUSTER#{cluster.id}"
    item = ClusterItem(pk, "CLUSTER", gsi1pk=_ALL, gsi1sk=pk, data=_data(cluster))
    rest = [KubeconfigItem(pk, "KUBECONFIG", secret=secret), ReservationsItem(pk, "RESERVATIONS", reservations={})]
    with conflicts(_taken(cluster.name), code="name_taken"):
        write(create=[item, *rest, claim("cluster", cluster.name, cluster.id), *outbox(event)])
    return _cluster(item)


def _taken(name: str) -> str:
    return f"There is a cluster named {name} already."


def load(cluster_id: str) -> Cluster:
    return _cluster(_item(cluster_id))


def load_secret(cluster_id: str) -> Secret:
    secret: Secret = _get(KubeconfigItem, cluster_id, "KUBECONFIG").secret
    return secret


def page_of(limit: int, cursor: str | None) -> tuple[list[Cluster], str | None]:
    items, following = page(ClusterItem, _ALL, index=ClusterTable.gsi1, limit=limit, cursor=cursor)
    return [_cluster(item) for item in items], following


def update(cluster_id: str, change: Callable[[Cluster], Event | None], *, secret: Secret | None = None) -> Cluster:
    """Read, ``change`` in place, write with the returned event; a new name is claimed in the same transaction."""

    def attempt() -> Cluster:
        item = _item(cluster_id)
        before, cluster = _cluster(item), _cluster(item)
        event = change(cluster)
        item.data = _data(cluster)
        create, delete = _renamed(before, cluster)
        with conflicts("changed meanwhile", code=STALE):
            write(save=[item, *_resealed(cluster_id, secret)], create=[*create, *outbox(event)], delete=delete)
        return _cluster(item)

    return until_written(f"Cluster {cluster_id}", attempt)


def _resealed(cluster_id: str, secret: Secret | None) -> list[Item]:
    if secret is None:
        return []
    kept: KubeconfigItem = _get(KubeconfigItem, cluster_id, "KUBECONFIG")
    kept.secret = secret
    return [kept]


def _renamed(before: Cluster, after: Cluster) -> tuple[list[Item], list[Item]]:
    """Claims to create and to delete."""
    if before.name == after.name:
        return [], []
    if claimed("cluster", after.name):
        raise Conflict(_taken(after.name), code="name_taken")
    return [claim("cluster", after.name, after.id)], claimed("cluster", before.name)


def delete(cluster: Cluster, event: Event, *, abandon: bool) -> None:
    """The cluster, its secret, its reservations and its name in one transaction; ``Conflict`` when it is in use and not
    to be abandoned."""
    held = _get(ReservationsItem, cluster.id, "RESERVATIONS")
    if held.reservations and not abandon:
        raise Conflict(f"{len(held.reservations)} deployment(s) belong to cluster {cluster.name}.",
                       code="cluster_in_use", next_action=_FIRST)  # fmt: skip
    gone = [_item(cluster.id), _get(KubeconfigItem, cluster.id, "KUBECONFIG"), held]
    with conflicts(f"Cluster {cluster.id} was changed by another writer."):
        write(delete=[*gone, *claimed("cluster", cluster.name)], create=outbox(event))
    replace_nodes(cluster.id, [])


def nodes(cluster_id: str) -> list[Node]:
    return [Node(**item.data) for item in every(NodeItem, f"CLUSTER#{cluster_id}", prefix="NODE#")]


def node_page(cluster_id: str, limit: int, cursor: str | None) -> tuple[list[Node], str | None]:
    items, following = page(NodeItem, f"CLUSTER#{cluster_id}", prefix="NODE#", limit=limit, cursor=cursor)
    return [Node(**item.data) for item in items], following


def replace_nodes(cluster_id: str, found: Sequence[Node]) -> None:
    """Make the kept nodes exactly ``found``. Idempotent; not atomic, since a cluster may have thousands."""
    pk = f"CLUSTER#{cluster_id}"
    keep = {f"NODE#{node.name}" for node in found}
    gone = [item for item in every(NodeItem, pk, prefix="NODE#") if item.sk not in keep]
    with NodeItem.batch_write() as batch:
        for item in gone:
            batch.delete(item)
        for node in found:
            batch.save(NodeItem(pk, f"NODE#{node.name}", data=data_of(node)))


def reservations(cluster_id: str) -> Reservations:
    return _reservations(_get(ReservationsItem, cluster_id, "RESERVATIONS"))


def reserve(cluster_id: str, change: Callable[[Reservations], None]) -> None:
    """Read the reservations, ``change`` them in place, write them unless they are as before."""

    def attempt() -> None:
        item = _get(ReservationsItem, cluster_id, "RESERVATIONS")
        held = _reservations(item)
        change(held)
        after = {owner: one.model_dump() for owner, one in held.items()}
        if after == item.reservations:
            return
        item.reservations = after
        with conflicts("changed meanwhile", code=STALE):
            write(save=[item])

    until_written(f"Capacity of cluster {cluster_id}", attempt)


def _reservations(item: ReservationsItem) -> Reservations:
    return {owner: Reservation(**one) for owner, one in item.reservations.items()}


def _get(kind: Any, cluster_id: str, sk: str) -> Any:
    try:
        return kind.get(f"CLUSTER#{cluster_id}", sk, consistent_read=True)
    except kind.DoesNotExist as error:
        raise NotFound(f"There is no cluster {cluster_id}.", code="cluster_not_found",
                       next_action="foundry clusters list") from error  # fmt: skip


def _item(cluster_id: str) -> ClusterItem:
    item: ClusterItem = _get(ClusterItem, cluster_id, "CLUSTER")
    return item


def _data(cluster: Cluster) -> dict[str, Any]:
    return data_of(cluster, "gpus_reserved")


def _cluster(item: ClusterItem) -> Cluster:
    return Cluster(**item.data, version=int(item.version or 0))
