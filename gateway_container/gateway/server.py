"""The hot path as a server: a listening socket, the runtime behind it, and an orderly end."""

import asyncio
import socket
from types import TracebackType

from gateway.front import Front
from gateway.hot import Hot
from gateway.runtime import Gateway
from gateway.settings import Settings

BACKLOG = 4096


class Server:
    """``async with Server(settings) as server`` serves until the block ends, then drains. ``port`` is the real one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.gateway = Gateway(settings)
        self.port = settings.port

    async def __aenter__(self) -> "Server":
        await self.gateway.start()
        self.hot = Hot(self.gateway)
        listening = self._listen()
        self.port = listening.getsockname()[1]
        self._server = await self.hot.loop.create_server(lambda: Front(self.hot), sock=listening, backlog=BACKLOG)
        self._sweeper = asyncio.create_task(self.hot.sweep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self.hot.drain()
        self._sweeper.cancel()
        await self.gateway.stop()

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.settings.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        listening.bind((self.settings.host, self.settings.port))
        listening.setblocking(False)
        return listening
