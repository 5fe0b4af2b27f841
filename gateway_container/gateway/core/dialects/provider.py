"""What all providers have: a name of their own for a model, and errors."""

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway.core.exchange import Exchange


def model_of(exchange: "Exchange") -> str:
    """The model as the deployment calls it."""
    assert exchange.call is not None and exchange.deployment is not None and exchange.answered_by is not None
    return exchange.answered_by.adapters.get(exchange.call.model, exchange.deployment.model)


class _Failure(msgspec.Struct):
    message: str = ""


class _Body(msgspec.Struct):
    """An error as any provider writes it; AWS spells its field both ways."""

    error: _Failure | str | None = None
    message: str = ""
    capital: str = msgspec.field(default="", name="Message")


_body = msgspec.json.Decoder(_Body | list[_Body])


def message_of(body: bytes) -> str:
    """What a provider's error says."""
    try:
        found = _body.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "The provider of this model answered with an error."
    first = found if isinstance(found, _Body) else found[0] if found else _Body()
    nested = first.error.message if isinstance(first.error, _Failure) else first.error
    return nested or first.message or first.capital or "The provider of this model answered with an error."
