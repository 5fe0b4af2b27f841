"""An ASGI application on a loopback port, in a thread of its own with its own event loop."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from .errors import PlatformError

HOST = "127.0.0.1"
START_LIMIT_S = 20.0
STOP_LIMIT_S = 10.0
FREE_LIMIT_S = 8.0


class PortTaken(PlatformError):
    """Something else listens on the port."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def bind(port: int) -> socket.socket:
    """A listening socket: from now on connections wait instead of being refused."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise PortTaken(f"port {port} is in use: foundry up --port PORT takes another one") from error
    listener.listen(512)
    return listener


def wait_free(port: int, limit_s: float = FREE_LIMIT_S) -> None:
    """Return once nothing listens on ``port``; :class:`PortTaken` when that takes too long.

    What belonged to a killed platform ends a moment after it.
    """
    deadline = time.monotonic() + limit_s
    while True:
        try:
            bind(port).close()
        except PortTaken:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


class LoopThread:
    """An event loop in a thread of its own that runs :meth:`serve` until :meth:`stop`."""

    port: int

    def __init__(self, name: str) -> None:
        self.ready, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        self._thread.start()
        if not self.ready.wait(START_LIMIT_S) or self._ended:
            raise RuntimeError(f"{self._thread.name} did not start within {START_LIMIT_S:.0f} s")

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self.stopping.set)
        self._thread.join(timeout=STOP_LIMIT_S)

    async def serve(self) -> None:
        """Set ``ready`` when requests are answered; return soon after ``stopping`` is set."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        finally:
            self._ended = True
            self.ready.set()

    async def _main(self) -> None:
        self._loop, self.stopping = asyncio.get_running_loop(), asyncio.Event()
        await self.serve()


class Server(LoopThread):
    """Serves the ASGI application ``app`` on ``listener``."""

    def __init__(self, app: Callable[..., Any], listener: socket.socket, name: str) -> None:
        # Imported here, so that the doctor can use this module on a machine that lacks packages.
        import uvicorn

        super().__init__(name)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            app,
            lifespan="auto",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=3,
        )
        self._listener, self._server = listener, uvicorn.Server(config)

    async def serve(self) -> None:
        # uvicorn's public serve() installs signal handlers, which only a main thread may do.
        serving = asyncio.create_task(self._server._serve([self._listener]))
        while not self._server.started and not serving.done():  # noqa: ASYNC110 (uvicorn has no event to await)
            await asyncio.sleep(0.005)
        self.ready.set()
        await self.stopping.wait()
        self._server.should_exit = True
        await serving
