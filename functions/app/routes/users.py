"""Routes of people: who am I, and the administration of users."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from foundry_core.http import CurrentPrincipal, require
from foundry_core.permissions import Action
from foundry_core.principal import Principal

from functions.app.routes.common import UNCHANGED, Cursor, Id, Limit, tagged
from functions.app.schemas import Me, Page, User, UserChange, UserCreate
from functions.app.services import users as service

router = APIRouter(tags=["users"])
Reader = Annotated[Principal, require(Action.USERS_READ)]
Writer = Annotated[Principal, require(Action.USERS_WRITE)]


@router.get("/me")
def get_me(principal: CurrentPrincipal) -> Me:
    """Who you are, your roles and your memberships."""
    return service.me(principal)


@router.get("/users")
def list_users(_: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[User]:
    """People with an account; a page holds at most 60."""
    items, following = service.page_of(limit, cursor)
    return Page(items=items, next_cursor=following)


@router.post("/users", status_code=201)
def create_user(body: UserCreate, response: Response, principal: Writer) -> User:
    """Invite a person by e-mail."""
    user = service.create(body, principal)
    response.headers["location"] = f"/users/{user.id}"
    return user


@router.get("/users/{user_id}", responses=UNCHANGED)
def get_user(user_id: Id, request: Request, response: Response, _: Reader) -> User:
    """One person, by id or e-mail address."""
    return tagged(request, response, service.get(user_id))


@router.patch("/users/{user_id}")
def change_user(user_id: Id, body: UserChange, principal: Writer) -> User:
    """Replace the roles; disable or enable the account."""
    return service.change(user_id, body, principal)


@router.delete("/users/{user_id}", status_code=204)
def delete_user(user_id: Id, principal: Writer) -> None:
    """Delete an account and its memberships."""
    service.delete(user_id, principal)
