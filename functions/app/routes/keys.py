"""Routes of a project's API keys."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from foundry_core.http import require, require_match
from foundry_core.lambda_api import SECRET_HEADER
from foundry_core.permissions import Action
from foundry_core.principal import Principal

from functions.app.routes.common import UNCHANGED, Cursor, Id, Limit, tag_of, tagged
from functions.app.schemas import Key, KeyChange, KeyCreate, NewKey, Page
from functions.app.services import keys as service

router = APIRouter(prefix="/projects/{project_id}/keys", tags=["keys"])
Reader = Annotated[Principal, require(Action.PROJECT_READ)]
Writer = Annotated[Principal, require(Action.KEYS_WRITE)]


@router.get("")
def list_keys(project_id: Id, _: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[Key]:
    """The project's keys, without their secrets."""
    items, following = service.page_of(project_id, limit, cursor)
    return Page(items=items, next_cursor=following)


@router.post("", status_code=201)
def create_key(project_id: Id, body: KeyCreate, response: Response, principal: Writer) -> NewKey:
    """Make a key. The secret is in this answer only."""
    key = service.create(project_id, body, principal)
    response.headers["location"] = f"/projects/{project_id}/keys/{key.id}"
    response.headers[SECRET_HEADER] = "secret"
    return key


@router.get("/{key_id}", responses=UNCHANGED)
def get_key(project_id: Id, key_id: Id, request: Request, response: Response, _: Reader) -> Key:
    """One key, without its secret."""
    return tagged(request, response, service.get(project_id, key_id))


@router.patch("/{key_id}")
def change_key(
    project_id: Id, key_id: Id, body: KeyChange, request: Request, response: Response, principal: Writer
) -> Key:
    """Rename or restrict a key; gateways follow within two seconds."""
    key = service.change(project_id, key_id, body, principal, lambda now: require_match(request, tag_of(now)))
    response.headers["etag"] = tag_of(key)
    return key


@router.delete("/{key_id}", status_code=204)
def delete_key(project_id: Id, key_id: Id, principal: Writer) -> None:
    """Revoke a key; gateways refuse it within two seconds."""
    service.delete(project_id, key_id, principal)
