"""One gateway process without its HTTP front: policy core, journals, and the tasks that talk to the control plane."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import httpx

from gateway.control import ControlPlane, ControlPlaneAway
from gateway.core import wire
from gateway.core.exchange import Exchange
from gateway.core.health import eject_outliers
from gateway.core.lease import Lease, Scope
from gateway.core.policy import Policy
from gateway.core.problems import Rejected
from gateway.core.shapes import Row
from gateway.core.snapshot import BrokenSnapshot, Deployment, load
from gateway.core.stage import Header, Outgoing
from gateway.credentials import Credentials, NoCredential
from gateway.extras import Extras
from gateway.geoip import Countries
from gateway.journal import DirectoryLock, LeaseJournal, LeaseSlot
from gateway.metering import Meter
from gateway.observability import Observability
from gateway.settings import Settings

log = logging.getLogger("gateway")
LEASE_GAP_S = 0.02
RETRY_S = 0.2
SWEEP_S = 1.0
LAST_SEQ = 2**53 - 1


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Gateway:
    """Everything that both forms share. ``start`` before the first request, ``stop`` after the last."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self.boot = f"{now_ms():x}{os.urandom(4).hex()}-"
        self.directory = settings.spool_dir / settings.name
        self.lock = DirectoryLock(self.directory)
        self.control = ControlPlane(settings.control_plane_url, settings.gateway_token, settings.name, transport)
        self.policy = Policy(settings.name, self.boot, settings.open_bounds)
        if settings.geoip_file is not None:
            self.policy.blocking.country_of = Countries(settings.geoip_file)
        self.observability = Observability(settings)
        self.meter = Meter(self.directory, self.boot.rstrip("-"), self._upload, settings.batch_rows, settings.flush_s)
        self.meter.observe = self.observability.add
        self.emit: Callable[[Row], None] = self.meter.add
        self.journal = LeaseJournal(self.directory / "leases")
        self._left_behind = [
            wire.LeaseRequest(slot.scope, slot.kind, slot.lease_id, LAST_SEQ, at_risk, 0, at_risk, close=True)
            for slot, at_risk in self.journal.left_behind
        ]
        self.trusted_proxies = tuple(ip_network(cidr, strict=False) for cidr in settings.trusted_proxies)
        self.draining = False
        self.config_errors = 0
        self.config_heard_s = time.monotonic()  # when the control plane last said which config is in force
        self.open_connections: Callable[[], int] = lambda: 0
        self.on_swap: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._nudged = asyncio.Event()
        self._answered: asyncio.Future[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._swapped: asyncio.Future[None] | None = None
        self._held: dict[str, int] = {}  # requests that wait for a deployment to wake
        self._credentials = Credentials(settings.gateway_token, settings.credentials_dir)
        self.extras = Extras(self)
        book = self.policy.book
        book.nudge = self._nudged.set
        book.opened = self._journal_lease
        book.closed = lambda lease: self.journal.close(lease.id)

    @property
    def snapshot_path(self) -> Path:
        return self.directory / "snapshot.json"

    async def start(self) -> None:
        """Load the config (from the control plane, else from the disk copy) and start the background tasks."""
        if not await self._poll_once() and self.policy.snapshot is None:
            self._load_disk_copy()
        for work in (self._poll, self._lease, self.meter.run, self._watch, *self.observability.work()):
            self._tasks.append(asyncio.create_task(work(), name=f"gateway {work.__name__}"))

    async def stop(self) -> None:
        """Give leases back and upload what was metered; what cannot be uploaded stays in the spool."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.extras.close()
        self.policy.book.close_all()
        await self._exchange_leases(sweep=True)
        await self.meter.drain()
        await self.observability.close()
        self.journal.drop()
        await self.control.close()
        self.lock.__exit__(None, None, None)

    # --- config -------------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.settings.poll_s)
            await self._poll_once()

    async def _poll_once(self) -> bool:
        """True when the control plane answered."""
        try:
            data = await self.control.config()
        except ControlPlaneAway as error:
            log.warning("config: %s", error)
            return False
        self.config_heard_s = time.monotonic()
        if data is not None:
            if self.take(data):
                self._write_disk_copy(data)
            self.control.keep()
        return True

    def take(self, data: bytes) -> bool:
        """Put a snapshot document in force; a broken one is refused and the last good one keeps serving."""
        try:
            snapshot = load(data, self.policy.snapshot)
        except BrokenSnapshot as error:
            self.config_errors += 1
            log.error("config refused: %s", error)
            return False
        self._credentials.sealed = snapshot.credentials
        self.policy.swap(snapshot)
        for told in self.on_swap:
            told()
        swapped, self._swapped = self._swapped, None
        if swapped is not None and not swapped.done():
            swapped.set_result(None)
        if snapshot.countries and self.settings.geoip_file is None:
            log.warning("blocking by country has no effect: set GATEWAY_GEOIP_FILE")
        log.info("config %d in force", snapshot.version)
        return True

    def _write_disk_copy(self, data: bytes) -> None:
        fresh = self.snapshot_path.with_suffix(".new")
        try:
            fresh.write_bytes(data)
            fresh.replace(self.snapshot_path)
        except OSError as error:
            log.error("the disk copy of the config cannot be written: %s", error)

    def _load_disk_copy(self) -> None:
        try:
            self.take(self.snapshot_path.read_bytes())
        except OSError:
            log.warning("no disk copy of the config: waiting for the control plane")

    # --- leases -------------------------------------------------------------------------------------------------

    async def reserve(self, exchange: Exchange) -> None:
        """Hold the worst case, waiting for a lease where one may come. Raises Rejected."""
        policy = self.policy
        deadline_s = time.monotonic() + self.settings.lease_wait_s
        short = policy.reserve(exchange, now_ms()) if exchange.plan else None
        while short is not None:
            policy.refuse_short(short, now_ms())
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise Rejected("budget_unavailable", retry_after_s=1)
            await self._next_answer(left_s)
            short = policy.reserve(exchange, now_ms())

    async def _next_answer(self, timeout_s: float) -> None:
        if self._answered is None:
            self._answered = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._answered], timeout=timeout_s)

    async def _lease(self) -> None:
        await self._close_left_behind()
        swept_s = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), SWEEP_S)
            sweep = time.monotonic() - swept_s >= SWEEP_S
            if sweep:
                swept_s = time.monotonic()
            await self._exchange_leases(sweep)
            await asyncio.sleep(LEASE_GAP_S)

    async def _exchange_leases(self, sweep: bool) -> None:
        self._nudged.clear()
        messages = self.policy.book.messages(now_ms(), sweep)
        if not messages:
            return
        try:
            await self._tell(messages)
        except ControlPlaneAway as error:
            log.warning("leases: %s", error)
            self._later = asyncio.get_running_loop().call_later(RETRY_S, self._nudged.set)
        answered, self._answered = self._answered, None
        if answered is not None and not answered.done():
            answered.set_result(None)

    async def _tell(self, messages: list[wire.LeaseRequest]) -> None:
        try:
            reply = await self.control.lease(messages)
        except ControlPlaneAway:
            self.policy.book.failed(messages, now_ms())
            raise
        self.policy.book.apply(messages, reply, now_ms())

    async def _upload(self, batch_id: str, rows: int, data: bytes) -> None:
        """Rows go after the totals that they add up to: see ``LeaseBook.reports``."""
        if self._left_behind:
            raise ControlPlaneAway("the leases of the process before this one are not closed yet")
        messages = self.policy.book.reports(now_ms())
        if messages:
            await self._tell(messages)
        await self.control.upload(batch_id, rows, data)

    async def _close_left_behind(self) -> None:
        """Close the leases of a process that was killed with exactly what it spent or had in flight."""
        while self._left_behind:
            try:
                await self.control.lease(self._left_behind)
            except ControlPlaneAway:
                await asyncio.sleep(SWEEP_S)
                continue
            for request in self._left_behind:
                self.journal.close(request.lease_id)
            self._left_behind = []

    def _journal_lease(self, scope: Scope, lease: Lease) -> None:
        if scope.kind == "money_nanos":
            lease.mark = self.journal.open(LeaseSlot(scope.name, scope.kind, lease.id))

    # --- deployments --------------------------------------------------------------------------------------------

    @property
    def requests_held(self) -> int:
        """How many wait for a deployment to wake."""
        return sum(self._held.values())

    async def choose(self, exchange: Exchange) -> Deployment:
        """A deployment, waiting for a sleeping one to wake where the endpoint says so. Raises Rejected."""
        policy = self.policy
        while (chosen := policy.choose(exchange, time.monotonic())) is None:
            asleep = policy.sleeping(exchange)
            if asleep is None:
                raise Rejected("no_deployment", retry_after_s=1)
            await self._wake(exchange, asleep)
            policy.readmit(exchange)
        return chosen

    async def _wake(self, exchange: Exchange, asleep: Deployment) -> None:
        """Ask for the wake-up (one lease, so one gateway orders it) and hold the request until the config changes."""
        assert exchange.endpoint is not None
        rules = exchange.endpoint.policy
        left_s = exchange.arrived_s + rules.hold_s - time.monotonic()
        held = self._held.get(asleep.id, 0)
        if left_s <= 0 or held >= rules.hold_queue:
            raise Rejected("no_deployment", "The model is starting. Try again shortly.", retry_after_s=5)
        self.policy.book.reserve((self.policy.book.scope(f"deployment:{asleep.id}", "wake", 1),), (1, 0, 0), now_ms())
        self._held[asleep.id] = held + 1
        if self._swapped is None:
            self._swapped = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait([self._swapped], timeout=left_s)
        finally:
            self._held[asleep.id] -= 1

    def authorise(self, deployment: Deployment, request: Outgoing) -> None:
        """Add what the provider wants to see. Raises Rejected when the credential is missing."""
        with self._found(deployment):
            request.headers += self._credentials.sign(deployment, request)

    def authorisation(self, deployment: Deployment) -> list[Header]:
        """Headers that the provider wants. Raises Rejected when the credential is missing."""
        with self._found(deployment):
            return self._credentials.headers(deployment)

    @contextlib.contextmanager
    def _found(self, deployment: Deployment) -> Iterator[None]:
        try:
            yield
        except NoCredential as error:
            log.error("deployment %s: %s", deployment.id, error)
            raise Rejected("no_deployment") from None

    def secret(self, ref: str) -> str:
        """The plaintext of a credential. Raises NoCredential."""
        return self._credentials.secret(ref)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            snapshot = self.policy.snapshot
            for endpoint in snapshot.endpoints.values() if snapshot else ():
                for tier in endpoint.tiers:
                    eject_outliers(tier, time.monotonic())
