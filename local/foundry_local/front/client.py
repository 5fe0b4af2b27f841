"""A connection from outside: its requests are parsed, checked and sent on."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httptools
from foundry_core.errors import PROBLEM_JSON, FoundryError

from foundry_local.emulator.guard import DECIDING, foreign, is_foreign

from .back import Back
from .messages import HEAD_BYTES, head_too_large, malformed, message, too_large
from .routes import Routes, Upstream

_LINGER_S = 3.0
_REPLACED = frozenset(
    b"host content-length transfer-encoding expect te trailer upgrade keep-alive proxy-authorization "
    b"proxy-connection x-forwarded-for x-forwarded-proto x-forwarded-host".split()
)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass
class _Request:
    target: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)

    def header(self, name: bytes) -> bytes:
        return next((value for key, value in self.headers if key == name), b"")

    @property
    def head_bytes(self) -> int:
        return len(self.target) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def text(self, name: bytes) -> str:
        return self.header(name).decode("latin-1")


class Client(asyncio.Protocol):
    """A connection from outside, with the connections to upstreams that it needs, one each."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._parser = httptools.HttpRequestParser(self)
        self._request = _Request()
        self._in_head, self._head_bytes = True, 0
        self._backs: dict[tuple[str, int], Back] = {}
        self._refused = False
        self.last: Back | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        for back in self._backs.values():
            back.abandon()

    def pause_writing(self) -> None:
        for back in self._backs.values():
            back.pause()

    def resume_writing(self) -> None:
        for back in self._backs.values():
            back.resume()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        try:
            self._parser.feed_data(data)
            self._limit_head(len(data))
        except FoundryError as error:
            self.refuse(error)
        except httptools.HttpParserCallbackError as error:
            self.refuse(error.__context__ if isinstance(error.__context__, FoundryError) else malformed())
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.refuse(malformed())

    # Called by the parser, in this order for each request.

    def on_message_begin(self) -> None:
        self._request, self._in_head, self._head_bytes = _Request(), True, 0

    def on_url(self, part: bytes) -> None:
        self._request.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        request, self._in_head = self._request, False
        if request.head_bytes > HEAD_BYTES:
            raise head_too_large()
        if is_foreign(*map(request.text, DECIDING)):
            raise foreign()
        declared = request.header(b"content-length")
        limit = self._routes.upstream(request.target).body_bytes
        if declared.isdigit() and int(declared) > limit:
            raise too_large(limit)
        if request.header(b"expect").lower() == b"100-continue":
            self.transport.write(_CONTINUE)

    def on_body(self, part: bytes) -> None:
        self._request.body += part
        limit = self._routes.upstream(self._request.target).body_bytes
        if len(self._request.body) > limit:
            raise too_large(limit)

    def on_message_complete(self) -> None:
        request = self._request
        if request.target.partition(b"?")[0] == b"/healthz":
            self.transport.write(message(200, b'{"status":"ok"}', b"application/json"))
            return
        upstream = self._routes.upstream(request.target)
        self._back(upstream).send(self._forwarded(upstream), upstream.answer_s)

    def _limit_head(self, received: int) -> None:
        """The parser keeps an unfinished line to itself, however long it grows."""
        if self._in_head:
            self._head_bytes += received
            if self._head_bytes > HEAD_BYTES:
                raise head_too_large()

    def _back(self, upstream: Upstream) -> Back:
        key = (upstream.host, upstream.port)
        back = self._backs.get(key)
        if back is None or back.ended:
            back = self._backs[key] = Back(self, upstream)
        self.last = back
        return back

    def _forwarded(self, upstream: Upstream) -> bytes:
        request, parser = self._request, self._parser
        own = [(name, value) for name, value in request.headers if name not in _REPLACED]
        own += [
            (b"host", f"{upstream.host}:{upstream.port}".encode()),
            (b"x-forwarded-for", str(self.transport.get_extra_info("peername")[0]).encode()),
            (b"x-forwarded-proto", b"http"),
            (b"x-forwarded-host", request.header(b"host")),
        ]
        method: bytes = parser.get_method()
        if request.body or method in {b"POST", b"PUT", b"PATCH"}:
            own.append((b"content-length", str(len(request.body)).encode()))
        line = b"%s %s%s HTTP/%s\r\n" % (
            method, upstream.prefix.encode(), request.target, parser.get_http_version().encode()
        )  # fmt: skip
        return line + b"".join(b"%s: %s\r\n" % header for header in own) + b"\r\n" + bytes(request.body)

    def refuse(self, error: FoundryError) -> None:
        """Answer with a problem document and close, but not before the client has had time to stop sending and read."""
        if self._refused:
            return
        self._refused = True
        problem = error.problem()
        body = problem.model_dump_json(exclude_none=True).encode()
        self.transport.write(message(problem.status, body, PROBLEM_JSON.encode(), b"connection: close\r\n"))
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_S, self.transport.close)
