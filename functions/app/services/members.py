"""Who belongs to a project. A project always has an owner."""

from collections.abc import Sequence

from foundry_core.clock import now_ms
from foundry_core.errors import Conflict
from foundry_core.events import Event, new_event
from foundry_core.permissions import Level
from foundry_core.principal import Principal

from functions.app import directory
from functions.app.schemas import Member
from functions.app.store import members as store

page_of = store.page_of


def put(project_id: str, user: str, level: Level, principal: Principal) -> Member:
    """Add a member or change the level. ``user`` is an id or an e-mail address; ``NotFound`` for nobody."""
    person = directory.get(user)
    member = Member(user_id=person.id, username=person.email, level=level, added_at_ms=now_ms())
    event = _event("put", project_id, person.id, principal, {"level": level.value})
    return store.put(project_id, member, refuse_without_owner, event)


def delete(project_id: str, user_id: str, principal: Principal) -> None:
    store.delete(project_id, user_id, refuse_without_owner, _event("removed", project_id, user_id, principal, {}))


def refuse_without_owner(members: Sequence[Member]) -> None:
    if not any(member.level == Level.OWNER for member in members):
        raise Conflict(
            "A project needs an owner, and this is its last one.",
            code="last_owner",
            next_action="Make somebody else an owner first.",
        )


def _event(what: str, project_id: str, user_id: str, principal: Principal, data: dict[str, object]) -> Event:
    facts = {"project_id": project_id, "user_id": user_id, "by": principal.user_id, **data}
    return new_event(f"foundry.member.{what}.v1", source="app", subject=project_id, data=facts)
