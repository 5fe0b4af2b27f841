"""The connection from the front to an upstream, on behalf of one client."""

import asyncio
from typing import Any, Protocol

from foundry_core.errors import FoundryError

from .messages import too_late, unreachable
from .routes import Upstream

_CONNECT_S = 5.0


class Owner(Protocol):
    """The client's side of the connection."""

    transport: Any
    last: "Back | None"

    def refuse(self, error: FoundryError) -> None: ...


class Back(asyncio.Protocol):
    """A connection to an upstream; what it sends goes to the client as it is."""

    def __init__(self, client: Owner, upstream: Upstream) -> None:
        self._client, self._upstream = client, upstream
        self._transport: Any = None
        self._waiting: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._unanswered = False
        self.ended = False
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def send(self, message: bytes, answer_s: float | None) -> None:
        self._unanswered = True
        if answer_s is not None:
            self._timer = asyncio.get_running_loop().call_later(answer_s, self._too_late)
        if self._transport is None:
            self._waiting.append(message)
        else:
            self._transport.write(message)

    def abandon(self) -> None:
        """The client left."""
        self.ended = True
        self._stop_timer()
        self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if self._transport is not None and not self.ended:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self.ended:
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.writelines(self._waiting)
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        if self._unanswered:
            self._unanswered = False
            self._stop_timer()
        self._client.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of an answer without a length, of an answer that broke off, or of a connection that was idle."""
        already, self.ended = self.ended, True
        self._stop_timer()
        if already:
            return
        if self._unanswered:
            self._client.refuse(unreachable(self._upstream))
        elif self._client.last is self:
            self._client.transport.close()

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(_CONNECT_S):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: self, self._upstream.host, self._upstream.port)
        except (OSError, TimeoutError):
            self.ended = True
            self._stop_timer()
            self._client.refuse(unreachable(self._upstream))

    def _too_late(self) -> None:
        if self._unanswered:
            self.abandon()
            self._client.refuse(too_late(self._upstream))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
