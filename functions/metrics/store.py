"""The metrics table: what was predicted for a deployment, and what its verification measured."""

from typing import TypeVar

from foundry_core.errors import Conflict
from foundry_core.events import Event, OutboxFields, outbox_keys
from foundry_core.table import Item, conflicts, meta, write
from pydantic import BaseModel
from pynamodb.attributes import JSONAttribute, UnicodeAttribute

from functions.metrics.schemas import DeploymentReady, DeploymentVerified

D = TypeVar("D", bound=BaseModel)
_TRIES = 5


class MetricsTable(Item):
    Meta = meta("metrics")


class NoteItem(MetricsTable, discriminator="note"):
    event_id = UnicodeAttribute()
    time = UnicodeAttribute()
    data = JSONAttribute()


class MetricsOutbox(OutboxFields, MetricsTable, discriminator="outbox"):
    pass


def tell(event: Event) -> None:
    """Have the relay put it on the bus."""
    write(create=[MetricsOutbox(**outbox_keys(event))])


def keep_newest(event: Event, data: DeploymentReady | DeploymentVerified) -> bool:
    """Keep what an event says, unless a later one is kept already. Twice is once; False when nothing changed."""
    for _ in range(_TRIES):
        item = _find(data.deployment_id, type(data).__name__)
        if item is not None and (item.event_id == event.id or item.time > event.time):
            return False
        item = item or NoteItem(_pk(data.deployment_id), type(data).__name__)
        item.event_id, item.time, item.data = event.id, event.time, data.model_dump(mode="json")
        try:
            with conflicts("Another event was faster."):
                item.save()
            return True
        except Conflict:
            continue
    raise Conflict("Too many events about one deployment at once.", next_action="Deliver the event again.")


def newest(kind: type[D], deployment_id: str) -> tuple[D, str] | None:
    """What the newest event of a kind said, and its time (ISO 8601)."""
    item = _find(deployment_id, kind.__name__)
    return (kind.model_validate(item.data), item.time) if item else None


def _find(deployment_id: str, kind: str) -> NoteItem | None:
    try:
        return NoteItem.get(_pk(deployment_id), kind, consistent_read=True)
    except NoteItem.DoesNotExist:
        return None


def _pk(deployment_id: str) -> str:
    return f"DEPLOYMENT#{deployment_id}"
