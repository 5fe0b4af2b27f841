"""Gateways: registered by operators, known by the hash of their token."""

from foundry_core.clock import now_ms
from foundry_core.errors import Unauthenticated
from foundry_core.events import Event, new_event
from foundry_core.ids import new_id, new_secret
from foundry_core.principal import Principal

from functions.app.schemas import Gateway, GatewayCreate, NewGateway
from functions.app.services.keys import sha256
from functions.app.store import gateways as store

page_of = store.page_of
TOKEN_PREFIX = "fgw"  # noqa: S105


def create(request: GatewayCreate, principal: Principal) -> NewGateway:
    """``Conflict`` with code ``name_taken``."""
    token = new_secret(TOKEN_PREFIX)
    gateway = Gateway(id=new_id("gw"), name=request.name, created_by=principal.user_id, created_at_ms=now_ms())
    store.insert(gateway, sha256(token), _event("created", gateway.id, principal))
    return NewGateway(**gateway.model_dump(), token=token)


def delete(gateway_id: str, principal: Principal) -> None:
    store.delete(gateway_id, _event("deleted", gateway_id, principal))


def authenticate(authorization: str) -> str:
    """Id of the gateway whose token this is; ``Unauthenticated`` for every other header."""
    token = token_of(authorization)
    if token.startswith(f"{TOKEN_PREFIX}-") and len(token) < 200:
        gateway_id = store.id_of_token(sha256(token))
        if gateway_id:
            return gateway_id
    raise Unauthenticated(
        "This is not the token of a registered gateway.", code="bad_gateway_token", next_action="Register a gateway."
    )


def token_of(authorization: str) -> str:
    """Empty when the header is of another scheme."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _event(what: str, gateway_id: str, principal: Principal) -> Event:
    data = {"gateway_id": gateway_id, "by": principal.user_id}
    return new_event(f"foundry.gateway.{what}.v1", source="app", subject=gateway_id, data=data)
