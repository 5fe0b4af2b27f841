"""Event envelopes with the CloudEvents 1.0 attributes, and the outbox that makes them as durable as the write.

A store writes its item and an ``OutboxItem`` in one transaction (``foundry_core.table.write``); the relay reads the
table's stream and puts the envelope on the bus. At least once: consumers are idempotent by event id.
"""

from typing import Any

from pydantic import BaseModel
from pynamodb.attributes import JSONAttribute, UnicodeAttribute

from foundry_core.clock import iso, now_ms
from foundry_core.ids import new_id

OUTBOX = "outbox"
_KEEP_MS = 7 * 24 * 3600 * 1000


class Event(BaseModel):
    """CloudEvents 1.0 envelope; ``type`` is also the EventBridge detail-type."""

    specversion: str = "1.0"
    id: str
    type: str
    source: str
    subject: str
    time: str
    data: dict[str, Any]


def new_event(type_: str, *, source: str, subject: str, data: dict[str, Any]) -> Event:
    """``type_`` such as ``foundry.deployment.ready.v1``; ``source`` is the domain."""
    return Event(
        id=new_id("evt"),
        type=type_,
        source=f"foundry.{source}",
        subject=subject,
        time=iso(now_ms()),
        data=data,
    )


class OutboxFields:
    """Mixin for a domain's outbox item: ``class AppOutbox(OutboxFields, AppItem, discriminator="outbox")``."""

    event_type = UnicodeAttribute()
    event = JSONAttribute()


def outbox_keys(event: Event) -> dict[str, Any]:
    """Attributes of the outbox item for ``event``."""
    return {
        "pk": f"OUTBOX#{event.id}",
        "sk": "EVENT",
        "event_type": event.type,
        "event": event.model_dump(),
        "expires_at": (now_ms() + _KEEP_MS) // 1000,
    }
