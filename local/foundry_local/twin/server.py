"""A twin on a loopback port, or fed with connections that somebody else accepted, in the running event loop."""

import asyncio
import logging
import socket
from collections.abc import Mapping
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from foundry_local.twin.app import TwinApp
from foundry_local.twin.clock import Clock
from foundry_local.twin.engine import NOISE_SIGMA, TwinEngine
from foundry_local.twin.options import EngineOptions
from foundry_local.twin.timing import model_for

logger = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"


class LoopServer:
    """uvicorn's HTTP protocol on a listener in this event loop, without its process machinery and polling."""

    def __init__(self, app: ASGIApp, port: int = 0) -> None:
        self._config = uvicorn.Config(
            app, lifespan="off", log_config=None, access_log=False, http="httptools", ws="none"
        )
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self.port = port

    def protocol(self) -> asyncio.Protocol:
        if not self._config.loaded:
            self._config.load()
        factory: Any = self._config.http_protocol_class
        made: asyncio.Protocol = factory(config=self._config, server_state=self._state, app_state={})
        return made

    async def start(self) -> None:
        """Listen on loopback; a taken port falls back to a free one.

        Raises:
            OSError: no port can be bound.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self.protocol, LOOPBACK, self.port)
        except OSError:
            if not self.port:
                raise
            logger.warning("port %d is taken, using another one", self.port)
            self._server = await loop.create_server(self.protocol, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that was accepted elsewhere."""
        await asyncio.get_running_loop().connect_accepted_socket(self.protocol, connection)

    async def stop(self, grace_s: float = 1.0) -> None:
        """Close the listener and idle connections at once, then what is still busy after `grace_s`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks and grace_s > 0:
            await asyncio.wait(set(self._state.tasks), timeout=grace_s)
        for connection in list(self._state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=1.0)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"


class TwinServer:
    """An engine and its server."""

    def __init__(self, engine: TwinEngine, options: EngineOptions, port: int = 0) -> None:
        self.engine = engine
        self.app = TwinApp(engine, options)
        self.http = LoopServer(self.app, port)

    @property
    def url(self) -> str:
        return self.http.url

    @property
    def port(self) -> int:
        return self.http.port

    async def start(self) -> None:
        self.engine.start()
        await self.http.start()

    async def stop(self, grace_s: float = 1.0) -> None:
        await self.http.stop(grace_s)
        await self.engine.stop()


def build_twin(
    options: EngineOptions,
    device: str,
    architecture: str | Mapping[str, Any] | None = None,
    *,
    port: int = 0,
    clock: Clock | None = None,
    noise_sigma: float = NOISE_SIGMA,
) -> TwinServer:
    """A twin for a command line on a device. See `model_for` for the arguments and errors."""
    model = model_for(options, device, architecture)
    engine = TwinEngine(
        model, clock=clock, seed=options.seed, noise_sigma=noise_sigma, prefix_caching=options.prefix_caching
    )
    return TwinServer(engine, options, port)
