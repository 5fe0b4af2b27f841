"""A request that is not inference, answered by the side application: a small ASGI server for one request at a time."""

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gateway.core.problems import Rejected

if TYPE_CHECKING:
    from gateway.front import Front
    from gateway.hot import Hot

MAX_SIDE_BODY_BYTES = 1 << 20
MAX_SIDE_S = 30.0


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
        self._task: asyncio.Task[None] | None = None
        self._started_s = 0.0
        self._status = 0
        self._head = b""
        self._is_head = method == b"HEAD"
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
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
        self._started_s = self.hot.loop.time()
        self._task = self.hot.spawn(self._serve())

    async def _serve(self) -> None:
        try:
            await self.hot.side(self._scope, self._receive, self._send)
        finally:
            if self._status == 0:
                self.keep_alive = False
            self.front.done(self)

    async def _receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def _send(self, message: Any) -> None:
        """Side answers are small: head and body go out in one piece, and the length is always known."""
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

    def client_left(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def pause(self) -> None:
        """Side answers are small."""

    def resume(self) -> None:
        pass

    def sweep(self, now_s: float) -> None:
        if self._task is not None and self.hot.loop.time() - self._started_s > MAX_SIDE_S:
            self._task.cancel()
