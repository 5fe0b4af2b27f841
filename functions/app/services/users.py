"""People and their roles. Nobody takes the last authority away from themselves by accident."""

from foundry_core.errors import Conflict
from foundry_core.events import Event, new_event
from foundry_core.permissions import Level
from foundry_core.principal import Principal, Role

from functions.app import directory
from functions.app.schemas import Me, User, UserChange, UserCreate
from functions.app.services import members
from functions.app.store import members as store
from functions.app.store import users

get = directory.get
page_of = directory.page_of


def me(principal: Principal) -> Me:
    return Me(
        id=principal.user_id,
        username=principal.username,
        roles=sorted(principal.roles),
        memberships=store.of_user(principal.user_id),
    )


def create(request: UserCreate, principal: Principal) -> User:
    user = directory.create(request.email, request.roles)
    users.announce(_event("created", user, principal))
    return user


def change(user_id: str, request: UserChange, principal: Principal) -> User:
    user = directory.get(user_id)
    _refuse_locking_out_oneself(user, request, principal)
    if request.roles is not None:
        user = directory.set_roles(user.id, request.roles)
    if request.enabled is not None:
        user = directory.set_enabled(user.id, request.enabled)
    users.announce(_event("changed", user, principal))
    return user


def delete(user_id: str, principal: Principal) -> None:
    """Leaves every project first. ``Conflict`` with code ``last_owner`` where nobody else owns one."""
    user = directory.get(user_id)
    if user.id == principal.user_id:
        raise Conflict("You cannot delete your own account.", code="own_account", next_action="Ask another admin.")
    memberships = store.of_user(user.id)
    for membership in memberships:
        if membership.level == Level.OWNER:
            others = [m for m in store.all_of(membership.project_id) if m.user_id != user.id]
            members.refuse_without_owner(others)
    for membership in memberships:
        members.delete(membership.project_id, user.id, principal)
    directory.delete(user.id)
    users.announce(_event("deleted", user, principal))


def _refuse_locking_out_oneself(user: User, request: UserChange, principal: Principal) -> None:
    if user.id != principal.user_id:
        return
    loses_role = request.roles is not None and Role.ADMIN not in request.roles
    if loses_role or request.enabled is False:
        raise Conflict("You cannot take your own authority away.", code="own_account", next_action="Ask another admin.")


def _event(what: str, user: User, principal: Principal) -> Event:
    data = {"user_id": user.id, "roles": [role.value for role in user.roles], "by": principal.user_id}
    return new_event(f"foundry.user.{what}.v1", source="app", subject=user.id, data=data)
