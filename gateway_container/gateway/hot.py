"""What all connections of one process share."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette

from gateway.core.authorise import refuse_blocked
from gateway.core.call import INFERENCE_PATHS
from gateway.core.headers import client_ip, token_of
from gateway.core.problems import Rejected
from gateway.core.snapshot import Deployment
from gateway.pool import Pools
from gateway.runtime import Gateway
from gateway.side import Side

if TYPE_CHECKING:
    from gateway.flow import Flow
    from gateway.front import Front

log = logging.getLogger("gateway.hot")
REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


class Hot:
    """The hot path's shared state: runtime, pools, open connections, the side application."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.policy = gateway.policy
        self.settings = gateway.settings
        self.loop = asyncio.get_running_loop()
        self.paths = frozenset(path.encode("ascii") for path in INFERENCE_PATHS)
        self.pools = Pools(gateway.settings.connect_timeout_s)
        self.side = Starlette(routes=Side(gateway).routes())
        self.fronts: set[Front] = set()
        self.tick = 0  # seconds since the start, advanced by the sweep
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines: dict[tuple[Deployment, str], bytes] = {}
        gateway.on_swap.append(self._lines.clear)

    @property
    def draining(self) -> bool:
        return self.gateway.draining

    def admit(self, front: "Front") -> bool:
        """Count a new connection. False when there are too many."""
        self.fronts.add(front)
        return len(self.fronts) <= self.settings.max_connections

    def forget(self, front: "Front") -> None:
        self.fronts.discard(front)

    def authorise(self, flow: "Flow", peer: str, named: dict[bytes, bytes]) -> None:
        """Find the key, apply the blocking rules. Raises Rejected."""
        if self.gateway.draining:
            raise Rejected("draining", retry_after_s=1)
        address = client_ip(peer, named.get(b"x-forwarded-for", b""), self.gateway.trusted_proxies)
        self.policy.authorise(flow, token_of(named), address)
        snapshot = self.policy.snapshot
        if snapshot is not None and snapshot.rules:
            refuse_blocked(snapshot, address, named.get(b"user-agent", b"").decode("latin-1"))

    def request_line(self, deployment: Deployment, path: str) -> bytes:
        """Request line and Host header, made once per deployment and path."""
        line = self._lines.get((deployment, path))
        if line is None:
            target = deployment.prefix + path.encode("ascii")
            line = b"POST %b HTTP/1.1\r\nHost: %b\r\n" % (target, deployment.authority)
            self._lines[deployment, path] = line
        return line

    def reason(self, status: int) -> bytes:
        return REASONS.get(status, b"Status")

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run something beside; a crash in it is logged, not lost."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task failed", exc_info=task.exception())

    async def sweep(self) -> None:
        """One timer for everything instead of timers per request."""
        while True:
            await asyncio.sleep(1.0)
            self.tick += 1
            now_s = time.monotonic()
            for front in list(self.fronts):
                front.sweep(now_s)
            self.pools.sweep(now_s)

    async def drain(self) -> None:
        """Let requests under way finish, at most ``drain_s``; new ones are sent away."""
        self.gateway.draining = True
        ends_s = time.monotonic() + self.settings.drain_s
        while self.fronts and time.monotonic() < ends_s:
            for front in list(self.fronts):
                front.sweep(time.monotonic())
            await asyncio.sleep(0.05)
        for front in list(self.fronts):
            front.transport.abort()
        await asyncio.sleep(0)
        self.pools.close()
