"""What all connections of one process share."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from gateway.clock import now_ms
from gateway.coalescer import Coalescer
from gateway.core.call import INFERENCE_PATHS
from gateway.core.coalesce import Load
from gateway.core.headers import OWN, client_ip
from gateway.core.problems import Rejected
from gateway.core.snapshot import Deployment
from gateway.header_names import HeaderNames, KnownRequest
from gateway.pool import Pool, Pools
from gateway.repeated_head import RepeatedHeads
from gateway.runtime import Gateway
from gateway.side import Side

if TYPE_CHECKING:
    from gateway.flow import Flow
    from gateway.front import Front

log = logging.getLogger("gateway.hot")
_clock_s: Final = time.monotonic
STATUS_LINES: Final = {s.value: b"HTTP/1.1 %d %b\r\n" % (s.value, s.phrase.encode("ascii")) for s in HTTPStatus}


class Hot:
    """The hot path's shared state: runtime, pools, open connections, the side application."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.policy = gateway.policy
        self.emit = gateway.emit
        self.tracer = gateway.observability.tracer
        self.server_timing = gateway.settings.server_timing
        self.settings = gateway.settings
        self.max_body_bytes = gateway.settings.max_body_bytes
        self.loop = asyncio.get_running_loop()
        self.paths = {path.encode("ascii"): path for path in INFERENCE_PATHS}
        self.pools = Pools(gateway.settings.connect_timeout_s)
        self.side = Side(gateway)
        self.fronts: set[Front] = set()
        self.heads: RepeatedHeads[KnownRequest] = RepeatedHeads()
        gateway.open_connections = self.fronts.__len__
        self.now_s = time.monotonic()  # read once per event: see tell_time
        self.now_ms = now_ms()
        self._wall_ms = self.now_ms - int(self.now_s * 1000)
        self.load = Load()
        self.pressure = 0.0  # 0 to 1: how long chunks of streams may wait for each other
        self.draining = False
        self.tick = 0  # seconds since the start, advanced by the sweep
        self._tasks: set[asyncio.Task[None]] = set()
        self.targets: dict[Deployment, dict[str, tuple[Pool, bytes]]] = {}  # by path
        self.held: dict[Flow, asyncio.Task[None]] = {}  # that wait for a deployment to wake
        self._whole: list[tuple[Flow, bytes]] = []  # answers that it passed on
        self._asked: list[Flow] = []  # requests that came in this turn of the event loop
        gateway.on_swap.append(self.targets.clear)

    def tell_time(self) -> float:
        """Read the clocks. Everything that happens within one event happens at one time."""
        now_s = self.now_s = _clock_s()
        self.now_ms = int(now_s * 1000.0) + self._wall_ms
        return now_s

    # What can wait to the end of a turn of the event loop is done there for all requests that it brought, step by step:
    # the code of one step stays in the processor's caches. That saves a sixth of the CPU time per request.

    def run_soon(self, flow: "Flow") -> None:
        """Run a request once this turn has read what there is to read."""
        if not self._asked:
            self.loop.call_soon(self._run)
        self._asked.append(flow)

    def _run(self) -> None:
        asked, self._asked = self._asked, []
        admitted = []
        for flow in asked:
            try:
                if not flow.over and flow.admit():
                    admitted.append(flow)
            except Exception:
                self._crashed(flow)
        for flow in admitted:
            try:
                flow.proceed()
            except Exception:
                self._crashed(flow)

    def _crashed(self, flow: "Flow") -> None:
        """It ends alone: the others of its turn go on."""
        log.exception("request %s failed", flow.event_id)
        flow.front.transport.abort()

    def settle_soon(self, flow: "Flow", answer: bytes) -> None:
        """Settle at the end of this turn: before any request that this answer leads to."""
        if not self._whole:
            self.loop.call_soon(self._settle)
        self._whole.append((flow, answer))

    def _settle(self) -> None:
        whole, self._whole = self._whole, []
        rows = []
        for flow, answer in whole:
            try:
                rows.append(flow.settle(answer))
            except Exception:  # the rows of the others must not be lost
                log.exception("request %s could not be settled", flow.event_id)
        self.gateway.meter.add_all(rows)

    def admit(self, front: "Front") -> bool:
        """Count a new connection. False when there are too many."""
        self.fronts.add(front)
        return len(self.fronts) <= self.settings.max_connections

    def forget(self, front: "Front") -> None:
        self.fronts.discard(front)

    def authorise(
        self, flow: "Flow", front: "Front", token: bytes, named: dict[bytes, bytes], names: HeaderNames
    ) -> None:
        """Find the key, apply the blocking rules. Raises Rejected."""
        snapshot = self.policy.snapshot
        if snapshot is not None and not snapshot.rules and not self.draining:
            if token == front.token and snapshot is front.snapshot:
                flow.key = front.key
                return
            key = snapshot.keys.get(sha256(token).digest())
            # Nothing else to check, now or after a hold: the common case.
            if key is not None and not key.guarded and not snapshot.holds:
                flow.key = front.key = key
                front.token, front.snapshot = token, snapshot
                return
        if self.draining:
            raise Rejected("draining", retry_after_s=1)
        forwarded_for = named[names.forwarded_for] if names.forwarded_for else b""
        address = client_ip(front.peer, forwarded_for, self.gateway.trusted_proxies)
        agent = named[names.user_agent].decode("latin-1") if names.user_agent else ""
        if snapshot is not None and snapshot.rules:
            self.policy.blocking.refuse(snapshot, address, agent, self.now_ms)
        flow.origin = address, agent
        self.policy.authorise(flow, token, address)

    def trace(self, flow: "Flow", named: dict[bytes, bytes], names: HeaderNames) -> None:
        """Begin the request's trace if it is sampled: deployments then see spans of the gateway as their parents."""
        assert self.tracer is not None
        trace = self.tracer.begin(named[names.traceparent] if names.traceparent else b"")
        if trace is not None:
            trace.forwarded = names.passed_on(named, but=names.traceparent)
            flow.trace = trace

    def target(self, deployment: Deployment, path: str) -> tuple[Pool, bytes]:
        """The pool, and the request line with the headers that never change; made once. Raises Rejected."""
        by_path = self.targets.setdefault(deployment, {})
        target = by_path.get(path)
        if target is None:
            address = deployment.prefix + path.encode("ascii")
            headers = [(b"Host", deployment.authority), *OWN, *self.gateway.authorisation(deployment)]
            line = b"POST %b HTTP/1.1\r\n" % address + b"".join(b"%b: %b\r\n" % header for header in headers)
            target = by_path[path] = self.pools.of(deployment), line
        return target

    def coalescer(self, flow: "Flow") -> Coalescer | None:
        """What writes the flow's stream, where its key or endpoint lets chunks wait."""
        wait_ms = flow.key.coalesce_ms if flow.key is not None else None
        if wait_ms is None and flow.endpoint is not None:
            wait_ms = flow.endpoint.policy.coalesce_ms
        return Coalescer(self, flow.front.transport, wait_ms / 1000) if wait_ms else None

    def status_line(self, status: int) -> bytes:
        return STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status

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
            self.tend()

    def tend(self) -> None:
        """What is due once a second."""
        self.tick += 1
        self._wall_ms = now_ms() - int(time.monotonic() * 1000)
        self.pressure = self.load.pressure()
        if self.settings.credentials_dir is not None:
            self.targets.clear()  # a file may hold another key by now
        now_s = self.tell_time()
        for front in list(self.fronts):
            front.sweep(now_s)
        self.pools.sweep(now_s)

    async def drain(self) -> None:
        """Let requests under way finish, at most ``drain_s``; new ones are sent away."""
        self.draining = self.gateway.draining = True
        ends_s = time.monotonic() + self.settings.drain_s
        while self.fronts and time.monotonic() < ends_s:
            for front in list(self.fronts):
                front.sweep(self.tell_time())
            await asyncio.sleep(0.05)
        for front in list(self.fronts):
            front.transport.abort()
        await asyncio.sleep(0)
        self.pools.close()
