"""Routes of a project's credentials for external providers."""

from typing import Annotated

from fastapi import APIRouter, Path
from foundry_core import secrets
from foundry_core.http import require
from foundry_core.permissions import Action
from foundry_core.principal import Principal

from functions.app.fields import Name
from functions.app.routes.common import Cursor, Id, Limit
from functions.app.schemas import Credential, CredentialPut, Page
from functions.app.services import credentials as service

router = APIRouter(prefix="/projects/{project_id}/credentials", tags=["credentials"])
Reader = Annotated[Principal, require(Action.PROJECT_READ)]
Writer = Annotated[Principal, require(Action.PROJECT_WRITE)]
CredentialName = Annotated[Name, Path()]


@router.get("")
def list_credentials(project_id: Id, _: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[Credential]:
    """Which credentials the project has; what they are is never shown."""
    items, following = service.page_of(project_id, limit, cursor)
    return Page(items=items, next_cursor=following)


@router.put("/{name}")
def put_credential(project_id: Id, name: CredentialName, body: CredentialPut, principal: Writer) -> Credential:
    """Store a provider's key, or replace it; it is kept encrypted, and gateways follow within two seconds."""
    return service.put(project_id, name, body.secret, principal, secrets.seal)


@router.delete("/{name}", status_code=204)
def delete_credential(project_id: Id, name: Id, principal: Writer) -> None:
    """Forget a key; gateways follow within two seconds, and endpoints that use it answer no more."""
    service.delete(project_id, name, principal)
