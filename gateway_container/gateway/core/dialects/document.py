"""JSON documents as clients and providers send them: decoded strictly, encoded without empty fields."""

import re
from typing import Any, TypeVar

import msgspec

from gateway.core.problems import Rejected
from gateway.core.stage import Garbled

UNKNOWN = re.compile(r"unknown field `([^`]*)`(?: - at `\$\.?([^`]*)`)?")
AT = re.compile(r" - at `\$\.?([^`]*)`")
DATA_URL = re.compile(r"data:([a-z0-9.+-]+/[a-z0-9.+-]+);base64,", re.I)
NULL = msgspec.Raw(b"null")
T = TypeVar("T")
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def of_client(body: bytes, decoder: "msgspec.json.Decoder[T]") -> T:
    """Raises Rejected with the name of the field that is wrong or not known."""
    try:
        return decoder.decode(body.decode())  # as text: raw parts are checked, too
    except msgspec.ValidationError as error:
        raise _not_fitting(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("invalid_request", f"The body is not a valid request: {error}.") from None


def _not_fitting(error: str) -> Rejected:
    unknown = UNKNOWN.search(error)
    if unknown is None:
        at = AT.search(error)
        return Rejected("invalid_request", f"The body is not a valid request: {error}.", param=at[1] if at else None)
    param = f"{unknown[2]}.{unknown[1]}" if unknown[2] else unknown[1]
    message = f"The field '{param}' cannot be translated for the provider of this model. Leave it out."
    return Rejected("invalid_request", message, param=param)


def of_provider(data: bytes, decoder: "msgspec.json.Decoder[T]") -> T:
    """Raises Garbled."""
    try:
        return decoder.decode(data.decode())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Garbled(f"not an answer of this provider: {error}") from None


def encode(**fields: Any) -> bytes:
    """A JSON object of the fields that are not None."""
    return msgspec.json.encode(said(**fields))


def said(**fields: Any) -> dict[str, Any]:
    """Only the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 data of a data URL; None for any other URL."""
    found = DATA_URL.match(url)
    return (found[1].lower(), url[found.end() :]) if found else None


def object_of(arguments: str) -> msgspec.Raw | None:
    """The arguments of a tool call as the JSON object that they spell; None when they do not."""
    try:
        _object(arguments or "{}")
    except (msgspec.MsgspecError, RecursionError):
        return None
    return msgspec.Raw((arguments or "{}").encode())


def given(raw: msgspec.Raw) -> msgspec.Raw | None:
    return None if bytes(raw) == b"null" else raw
