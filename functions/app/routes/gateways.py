"""Routes of gateways: registering one shows its token once."""

from typing import Annotated

from fastapi import APIRouter, Response
from foundry_core.http import require
from foundry_core.lambda_api import SECRET_HEADER
from foundry_core.permissions import Action
from foundry_core.principal import Principal

from functions.app.routes.common import Cursor, Id, Limit
from functions.app.schemas import Gateway, GatewayCreate, NewGateway, Page
from functions.app.services import gateways as service

router = APIRouter(prefix="/gateways", tags=["gateways"])
Operator = Annotated[Principal, require(Action.GATEWAYS_WRITE)]


@router.get("")
def list_gateways(_: Operator, limit: Limit = 50, cursor: Cursor = None) -> Page[Gateway]:
    """Registered gateways, without their tokens."""
    items, following = service.page_of(limit, cursor)
    return Page(items=items, next_cursor=following)


@router.post("", status_code=201)
def create_gateway(body: GatewayCreate, response: Response, principal: Operator) -> NewGateway:
    """Register a gateway. The token is in this answer only."""
    gateway = service.create(body, principal)
    response.headers["location"] = f"/gateways/{gateway.id}"
    response.headers[SECRET_HEADER] = "token"
    return gateway


@router.delete("/{gateway_id}", status_code=204)
def delete_gateway(gateway_id: Id, principal: Operator) -> None:
    """Forget a gateway; its token is refused from now on."""
    service.delete(gateway_id, principal)
