"""Keep-alive connections to deployments: one pool per address."""

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

from gateway.core.snapshot import Deployment

if TYPE_CHECKING:
    from gateway.upstream import Upstream

# Engines behind uvicorn close idle connections after 5 s; reusing one at that moment costs a retry.
IDLE_S: Final = 4.0
Address = tuple[str, int, bool]


class Pool:
    """Connections to one address that wait for their next request, the last used first."""

    __slots__ = ("address", "connect_timeout_s", "idle", "opened", "tls")

    def __init__(self, address: Address, connect_timeout_s: float, tls: ssl.SSLContext | None) -> None:
        self.address = address
        self.connect_timeout_s = connect_timeout_s
        self.tls = tls
        self.idle: list[Upstream] = []
        self.opened = 0

    def take(self) -> "Upstream | None":
        """An idle connection, if there is one."""
        while self.idle:
            upstream = self.idle.pop()
            if not upstream.dead:
                return upstream
        return None

    async def dial(self) -> "Upstream":
        """A new connection. Raises OSError (TimeoutError and ssl.SSLError are among them)."""
        from gateway.upstream import Upstream

        host, port, _ = self.address
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(lambda: Upstream(self), host, port, ssl=self.tls)
        _, upstream = await asyncio.wait_for(connecting, self.connect_timeout_s)
        self.opened += 1
        return upstream

    def sweep(self, now_s: float) -> None:
        """Close what has been idle for long."""
        while self.idle and now_s - self.idle[0].idle_since_s > IDLE_S:
            self.idle.pop(0).transport.abort()

    def close(self) -> None:
        while self.idle:
            self.idle.pop().transport.abort()


class Pools:
    """All pools of a process."""

    def __init__(self, connect_timeout_s: float) -> None:
        self.connect_timeout_s = connect_timeout_s
        self._pools: dict[Address, Pool] = {}
        self._tls: ssl.SSLContext | None = None  # made when it is needed: it holds a megabyte of certificates

    def of(self, deployment: Deployment) -> Pool:
        address = (deployment.host, deployment.port, deployment.tls)
        pool = self._pools.get(address)
        if pool is None:
            if deployment.tls and self._tls is None:
                self._tls = ssl.create_default_context()
            tls = self._tls if deployment.tls else None
            pool = self._pools[address] = Pool(address, self.connect_timeout_s, tls)
        return pool

    def sweep(self, now_s: float) -> None:
        for pool in self._pools.values():
            pool.sweep(now_s)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
