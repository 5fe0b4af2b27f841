"""One port in front of everything: ``/v1/*`` goes to the gateway, ``/healthz`` is answered here, the rest is the API.

It stands for what DNS, the load balancer and API Gateway do in AWS, with API Gateway's limits: bodies of 10 MB and
answers within 30 s. Bytes pass through as they come, so streams are not buffered.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import httpcore
from foundry_core.errors import PROBLEM_JSON, FoundryError, Invalid, TooLarge, Unavailable

from .emulator.guard import is_foreign, refuse

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

API_BODY_BYTES = 10 * 1024 * 1024
API_ANSWER_S = 30.0
GATEWAY_BODY_BYTES = 64 * 1024 * 1024
_CONNECT_S = 5.0
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
_REPLACED = _HOP_BY_HOP | {b"host", b"content-length", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"}


class _Gone(Exception):
    """The client left."""


@dataclass(frozen=True)
class Upstream:
    """A server behind the front. ``prefix`` is put before the path; ``answer_s`` limits the wait for each read."""

    url: str
    name: str
    prefix: str = ""
    body_bytes: int = API_BODY_BYTES
    answer_s: float | None = API_ANSWER_S

    @property
    def timeouts(self) -> dict[str, float | None]:
        return {"connect": _CONNECT_S, "read": self.answer_s, "write": self.answer_s, "pool": None}


def api_upstream(emulator_url: str, api_id: str) -> Upstream:
    """An HTTP API of the emulator, on its ``$default`` stage."""
    return Upstream(emulator_url, "the API", prefix=f"/_aws/execute-api/{api_id}")


def gateway_upstream(url: str) -> Upstream:
    return Upstream(url, "the gateway", body_bytes=GATEWAY_BODY_BYTES, answer_s=None)


class Front:
    """ASGI application that routes by the first segment of the path; ``default`` takes what no route names."""

    def __init__(self, routes: Mapping[str, Upstream], default: Upstream) -> None:
        self._routes, self._default = dict(routes), default
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=None, max_keepalive_connections=64, keepalive_expiry=30.0
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if is_foreign(scope):
            await refuse(send)
        elif scope["path"] == "/healthz":
            await _respond(send, 200, b'{"status":"ok"}', b"application/json")
        else:
            await self._proxy(scope, receive, send, self._upstream(scope["path"]))

    def _upstream(self, path: str) -> Upstream:
        return self._routes.get(path.lstrip("/").partition("/")[0], self._default)

    async def _proxy(self, scope: Scope, receive: Receive, send: Send, upstream: Upstream) -> None:
        try:
            body = await _body(scope, receive, upstream.body_bytes)
        except _Gone:
            return
        except FoundryError as error:
            await _problem(send, error)
            return
        relaying = asyncio.create_task(self._relay(scope, body, send, upstream))
        leaving = asyncio.create_task(_left(receive))
        await asyncio.wait({relaying, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        relaying.cancel()
        await asyncio.gather(relaying, leaving, return_exceptions=True)

    async def _relay(self, scope: Scope, body: bytes, send: Send, upstream: Upstream) -> None:
        started = False
        request = httpcore.Request(
            scope["method"], _target(scope, upstream), headers=_request_headers(scope, upstream, len(body)),
            content=body, extensions={"timeout": upstream.timeouts},
        )  # fmt: skip
        try:
            response = await self._pool.handle_async_request(request)
            try:
                headers = _end_to_end(response.headers)
                await send({"type": "http.response.start", "status": response.status, "headers": headers})
                started = True
                async for chunk in response.aiter_stream():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            finally:
                await response.aclose()
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            if started:
                raise  # the server breaks the connection off, which tells the client that the answer is incomplete
            await _problem(send, _unreachable(upstream, error))


def _unreachable(upstream: Upstream, error: Exception) -> FoundryError:
    if isinstance(error, httpcore.TimeoutException):
        return Unavailable(f"{upstream.name.capitalize()} did not answer in time.", code="upstream_timeout")
    detail = f"{upstream.name.capitalize()} is not there."
    return Unavailable(detail, code="upstream_unreachable", next_action="foundry status")


def _target(scope: Scope, upstream: Upstream) -> httpcore.URL:
    base = httpcore.URL(upstream.url)
    path = upstream.prefix.encode() + scope["raw_path"]
    query: bytes = scope["query_string"]
    target = path + b"?" + query if query else path
    return httpcore.URL(scheme=base.scheme, host=base.host, port=base.port, target=target)


def _request_headers(scope: Scope, upstream: Upstream, length: int) -> Headers:
    own = [(name, value) for name, value in scope["headers"] if name not in _REPLACED]
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    client = scope["client"][0] if scope.get("client") else "127.0.0.1"
    own += [
        (b"host", upstream.url.partition("://")[2].encode()),
        (b"x-forwarded-for", client.encode()),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", host),
    ]
    if length or scope["method"] in {"POST", "PUT", "PATCH"}:
        own.append((b"content-length", str(length).encode()))
    return own


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return [(name.lower(), value) for name, value in headers if name.lower() not in _HOP_BY_HOP]


async def _body(scope: Scope, receive: Receive, limit: int) -> bytes:
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if not declared.isdigit():
        raise Invalid("Content-Length is not a number.", code="bad_content_length")
    if int(declared) > limit:
        raise _too_large(limit)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return bytes(body)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit // (1024 * 1024)} MB.", next_action="Send less at once.")


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _problem(send: Send, error: FoundryError) -> None:
    problem = error.problem()
    body = problem.model_dump_json(exclude_none=True).encode()
    await _respond(send, problem.status, body, PROBLEM_JSON.encode())


async def _respond(send: Send, status: int, body: bytes, media_type: bytes) -> None:
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
