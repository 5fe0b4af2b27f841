"""A request that is not inference, answered by the side application: a small ASGI server for one request at a time."""

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gateway.core.problems import Rejected

if TYPE_CHECKING:
    from gateway.front import Front
    from gateway.hot import Hot

MAX_SIDE_BODY_BYTES = 1 << 20
MAX_SIDE_S = 30.0  # without anything that comes or goes


class SideCall:
    """One ASGI request and its answer."""

    def __init__(
        self, hot: "Hot", front: "Front", method: bytes, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self.hot = hot
        self.front = front
        self.keep_alive = True
        self.problem: Rejected | None = None
        self.body = b""
        self.max_body_bytes = MAX_SIDE_BODY_BYTES
        self.max_silence_s = MAX_SIDE_S
        self._task: asyncio.Task[None] | None = None
        self._heard_s = 0.0
        self._status = 0
        self._told = False  # the application has the whole body
        self._complete = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._head = b""
        self._is_head = method == b"HEAD"
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method.decode("ascii"),
            "scheme": "http",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "root_path": "",
            "query_string": query,
            "headers": [(name.lower(), value) for name, value in headers],
            "client": (front.peer, 0),
            "server": None,
        }

    def run(self) -> None:
        if self.problem is not None:
            self.front.respond(self.problem, self.problem.body(self._scope["path"]), self.keep_alive)
            self.front.done(self)
            return
        self._heard_s = self.hot.loop.time()
        self._task = self.hot.spawn(self._serve())

    async def _serve(self) -> None:
        try:
            await self.hot.side(self._scope, self._receive, self._send)
        finally:
            if not self._complete:
                self.keep_alive = False
            self.front.done(self)

    async def _receive(self) -> dict[str, Any]:
        if self._told:
            await self.hot.loop.create_future()  # nothing more comes; who leaves has the task cancelled
        self._told = True
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def _send(self, message: Any) -> None:
        """Head and the first of the body go out in one piece. The length is always known; the client sets the pace."""
        self._heard_s = self.hot.loop.time()
        if message["type"] == "http.response.start":
            self._status = message["status"]
            lines = [self.hot.status_line(self._status)]
            lines += [b"%b: %b\r\n" % header for header in message["headers"]]
            if not self.keep_alive:
                lines.append(b"connection: close\r\n")
            self._head = b"".join([*lines, b"\r\n"])
            return
        head, self._head = self._head, b""
        body = b"" if self._is_head else message.get("body", b"")
        if head or body:
            self.front.transport.write(head + body)
        self._complete = not message.get("more_body")
        await self._writable.wait()

    def client_left(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def pause(self) -> None:
        self._writable.clear()

    def resume(self) -> None:
        self._writable.set()

    def sweep(self, now_s: float) -> None:
        if self._task is not None and self.hot.loop.time() - self._heard_s > self.max_silence_s:
            self._task.cancel()
