"""Keeps web pages away from the emulator, which believes whoever reaches it.

It listens on loopback only, but a page in the user's browser can still send requests there: by DNS rebinding (a
foreign ``Host``), as a plain cross-site form post (a foreign ``Origin``), or as a picture or a link (no ``Origin``, but
a ``Sec-Fetch-Site`` that browsers set and pages cannot). Browsers older than 2023 may not send the last one.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from foundry_core.errors import PROBLEM_JSON, Forbidden

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
DECIDING = (b"host", b"origin", b"sec-fetch-site")  # the headers that ``is_foreign`` judges, in its order
_OWN_SITES = ("", "none", "same-origin")  # a program, the address bar, our own page


def is_local(authority: str) -> bool:
    """Whether ``host[:port]`` names this machine."""
    host, _, port = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
    name = host if host and port.isdigit() else authority
    return name.lower() in LOOPBACK


def is_foreign(host: str, origin: str, site: str) -> bool:
    """A browser request from another site, or one that reached us under a name that is not ours.

    ``site`` is ``Sec-Fetch-Site``; pages of this machine on another port prove themselves by Origin.
    """
    if origin:
        return not (is_local(host) and is_local(origin.partition("://")[2]))
    return not is_local(host) or site not in _OWN_SITES


def foreign() -> Forbidden:
    return Forbidden("This port answers programs on this machine only.", code="foreign_origin")


class Guard:
    """ASGI middleware: local callers only; ``on_request`` is told of each that gets through."""

    def __init__(self, app: App, on_request: Callable[[], None] = lambda: None) -> None:
        self._app, self._on_request = app, on_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_foreign(*(_header(scope, name) for name in DECIDING)):
            await _refuse(send)
            return
        await self._app(scope, receive, send)
        self._on_request()


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def _refuse(send: Send) -> None:
    problem = foreign().problem()
    body = problem.model_dump_json(exclude_none=True).encode()
    headers = [(b"content-type", PROBLEM_JSON.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
