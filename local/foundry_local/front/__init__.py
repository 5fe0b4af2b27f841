"""One port in front of everything: ``/v1/*`` goes to the gateway, ``/healthz`` is answered here, the rest is the API.

It stands for what DNS, the load balancer and API Gateway do in AWS, with API Gateway's limits: bodies of 10 MB and an
answer that begins within 30 s.

Requests are parsed, held to their limits and sent on as one message. Answers are not looked at: their bytes go from
socket to socket as they come, so a stream is neither buffered nor slowed down (an HTTP proxy costs ten times as much
per piece, which at a few thousand pieces a second is more than the engines themselves).
"""

import asyncio
import socket

from foundry_local.serve import LoopThread

from .client import Client
from .routes import Routes, Upstream, api_upstream, gateway_upstream

__all__ = ["Front", "Routes", "Upstream", "api_upstream", "gateway_upstream"]


class Front(LoopThread):
    """Serves ``routes`` on ``listener`` in a thread of its own."""

    def __init__(self, routes: Routes, listener: socket.socket) -> None:
        super().__init__("front")
        self.routes, self._listener = routes, listener
        self.port: int = listener.getsockname()[1]

    async def serve(self) -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Client(self.routes), sock=self._listener)
        self.ready.set()
        await self.stopping.wait()
        server.close()
