"""Registered gateways, found by the hash of their token."""

from foundry_core.errors import NotFound
from foundry_core.events import Event
from foundry_core.table import conflicts, page, write

from functions.app.schemas import Gateway
from functions.app.store.table import GatewayItem, TokenItem, claim, claimed, naming, one_or_none, outbox

_ALL = "GATEWAYS"


def insert(gateway: Gateway, token_sha256: str, event: Event) -> None:
    """``Conflict`` with code ``name_taken``."""
    item = GatewayItem(_ALL, f"GATEWAY#{gateway.id}", token_sha256=token_sha256, data=gateway.model_dump(mode="json"))
    items = [item, _token(token_sha256, gateway.id), claim("gateway", gateway.name, gateway.id), outbox(event)]
    with naming("gateway", gateway.name, gateway.id), conflicts("The gateway is there already."):
        write(create=items)


def page_of(limit: int, cursor: str | None) -> tuple[list[Gateway], str | None]:
    items, following = page(GatewayItem, _ALL, prefix="GATEWAY#", limit=limit, cursor=cursor)
    return [Gateway(**item.data) for item in items], following


def id_of_token(token_sha256: str) -> str | None:
    token = one_or_none(TokenItem, f"TOKEN#{token_sha256}", "TOKEN")
    return None if token is None else token.gateway_id


def delete(gateway_id: str, event: Event) -> None:
    try:
        item = GatewayItem.get(_ALL, f"GATEWAY#{gateway_id}", consistent_read=True)
    except GatewayItem.DoesNotExist:
        raise NotFound(f"There is no gateway {gateway_id}.", code="gateway_not_found") from None
    token = TokenItem.get(f"TOKEN#{item.token_sha256}", "TOKEN", consistent_read=True)
    name = claimed("gateway", item.data["name"])
    with conflicts("The gateway was changed by another writer."):
        write(delete=[item, token, *([name] if name else [])], create=[outbox(event)])


def _token(token_sha256: str, gateway_id: str) -> TokenItem:
    return TokenItem(f"TOKEN#{token_sha256}", "TOKEN", gateway_id=gateway_id)
