"""The kinds of items, claims on names, and the loop of an optimistic update."""

from collections.abc import Callable
from typing import Any, TypeVar

from foundry_core.errors import Conflict
from foundry_core.events import Event, OutboxFields, outbox_keys
from foundry_core.table import Gsi1, Item, meta
from pynamodb.attributes import JSONAttribute, UnicodeAttribute

T = TypeVar("T")
_TRIES = 8


class ClusterTable(Item):
    Meta = meta("cluster")
    gsi1 = Gsi1()


class ClusterItem(ClusterTable, discriminator="cluster"):
    data = JSONAttribute()


class KubeconfigItem(ClusterTable, discriminator="kubeconfig"):
    secret = JSONAttribute()


class NodeItem(ClusterTable, discriminator="node"):
    data = JSONAttribute()


class ReservationsItem(ClusterTable, discriminator="reservations"):
    reservations = JSONAttribute()


class DeploymentItem(ClusterTable, discriminator="deployment"):
    data = JSONAttribute()


class SpecItem(ClusterTable, discriminator="spec"):
    data = JSONAttribute()


class NameItem(ClusterTable, discriminator="name"):
    owner_id = UnicodeAttribute()


class ClusterOutbox(OutboxFields, ClusterTable, discriminator="outbox"):
    pass


def outbox(event: Event | None) -> list[Item]:
    return [ClusterOutbox(**outbox_keys(event))] if event else []


def claim(scope: str, name: str, owner_id: str) -> NameItem:
    """The claim on a name: only one transaction can create it."""
    return NameItem(_name_key(scope, name), "NAME", owner_id=owner_id)


def claimed(scope: str, name: str) -> list[Item]:
    """The claim as it is, to be deleted; empty when there is none."""
    try:
        return [NameItem.get(_name_key(scope, name), "NAME", consistent_read=True)]
    except NameItem.DoesNotExist:
        return []


def _name_key(scope: str, name: str) -> str:
    return f"{scope.upper()}NAME#{name}"


def until_written(what: str, attempt: Callable[[], T]) -> T:
    """Repeat ``attempt`` (read, change, write) while other writers are faster; a taken name is not repeated."""
    for _ in range(_TRIES):
        try:
            return attempt()
        except Conflict as error:
            if error.code != STALE:
                raise
    raise Conflict(f"{what} is being changed by too many writers.", next_action="Try again.")


STALE = "stale"


def data_of(model: Any, *computed: str) -> dict[str, Any]:
    """What is stored of a domain object: all but the version, which is the item's own, and ``computed`` fields."""
    data: dict[str, Any] = model.model_dump(mode="json", exclude={"version", *computed})
    return data
