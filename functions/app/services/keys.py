"""API keys: made, restricted and revoked by members; the secret is shown once and kept as SHA-256."""

import hashlib
from collections.abc import Callable

from foundry_core.clock import now_ms
from foundry_core.errors import Invalid
from foundry_core.events import Event, new_event
from foundry_core.ids import new_id, new_secret
from foundry_core.principal import Principal

from functions.app.schemas import Key, KeyChange, KeyCreate, NewKey
from functions.app.services.projects import merged
from functions.app.store import keys as store

get = store.load
page_of = store.page_of
SECRET_PREFIX = "fk"  # noqa: S105


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def create(project_id: str, request: KeyCreate, principal: Principal) -> NewKey:
    """``Conflict`` with code ``name_taken``; ``Invalid`` when it would have expired already."""
    _refuse_expired(request.expires_at_ms)
    secret = new_secret(SECRET_PREFIX)
    key = Key(
        id=new_id("key"), project_id=project_id, hint=secret[-4:], created_by=principal.user_id,
        created_at_ms=now_ms(), **request.model_dump(),
    )  # fmt: skip
    store.insert(key, sha256(secret), _event("created", key.project_id, key.id, principal))
    return NewKey(**key.model_dump(), secret=secret)


def change(
    project_id: str,
    key_id: str,
    request: KeyChange,
    principal: Principal,
    check: Callable[[Key], None] = lambda _: None,
) -> Key:
    """``check`` sees the key as it is and may refuse (If-Match)."""
    _refuse_expired(request.expires_at_ms)

    def apply(key: Key) -> tuple[Key, Event]:
        check(key)
        return changed(key, request), _event("changed", project_id, key_id, principal)

    return store.update(project_id, key_id, apply)


def changed(key: Key, request: KeyChange) -> Key:
    """Fields that were given replace those of the key; null lifts a restriction, but a name stays."""
    fields = request.model_dump(exclude_unset=True, exclude={"limits"})
    if fields.get("name") is None:
        fields.pop("name", None)
    if "limits" in request.model_fields_set:
        fields["limits"] = merged(key.limits, request.limits)
    return key.model_copy(update=fields)


def delete(project_id: str, key_id: str, principal: Principal) -> None:
    store.delete(project_id, key_id, _event("revoked", project_id, key_id, principal))


def _refuse_expired(expires_at_ms: int | None) -> None:
    if expires_at_ms is not None and expires_at_ms <= now_ms():
        raise Invalid("expires_at_ms: this time has passed.", next_action="Delete the key to revoke it at once.")


def _event(what: str, project_id: str, key_id: str, principal: Principal) -> Event:
    data = {"project_id": project_id, "key_id": key_id, "by": principal.user_id}
    return new_event(f"foundry.key.{what}.v1", source="app", subject=key_id, data=data)
