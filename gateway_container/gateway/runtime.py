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

from gateway.batch_runner import BatchRunner
from gateway.clock import now_ms
from gateway.control import ControlPlane, ControlPlaneAway
from gateway.core.choose import sleeping
from gateway.core.exchange import Exchange
from gateway.core.health import eject_outliers, fade
from gateway.core.policy import Policy
from gateway.core.problems import Rejected
from gateway.core.shapes import Row
from gateway.core.snapshot import BrokenSnapshot, Deployment, load
from gateway.core.stage import Header, Outgoing
from gateway.core.wake import order_wake
from gateway.credentials import Credentials, NoCredential
from gateway.extras import Extras
from gateway.geoip import Countries
from gateway.journal import DirectoryLock, LeaseJournal
from gateway.leasing import SWEEP_S, Leasing
from gateway.metering import Meter
from gateway.observability import Observability
from gateway.settings import Settings

log = logging.getLogger("gateway")


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
        self.journal = LeaseJournal(self.directory / "leases")
        self.leasing = Leasing(self.policy, self.control, self.journal, settings.lease_wait_s)
        boot = self.boot.rstrip("-")
        self.meter: Meter[Row] = Meter(self.directory, boot, self.leasing.upload, settings.batch_rows, settings.flush_s)
        self.meter.observe = self.observability.add
        self.emit: Callable[[Row], None] = self.meter.add
        self.trusted_proxies = tuple(ip_network(cidr, strict=False) for cidr in settings.trusted_proxies)
        self.draining = False
        self.config_errors = 0
        self.config_heard_s = time.monotonic()  # when the control plane last said which config is in force
        self.open_connections: Callable[[], int] = lambda: 0
        self.on_swap: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._swapped: asyncio.Future[None] | None = None
        self._held: dict[str, int] = {}  # requests that wait for a deployment to wake
        self._credentials = Credentials(settings.gateway_token, settings.credentials_dir)
        self.extras = Extras(self)
        self.batches = BatchRunner(self)

    @property
    def snapshot_path(self) -> Path:
        return self.directory / "snapshot.json"

    async def start(self) -> None:
        """Load the config (from the control plane, else from the disk copy) and start the background tasks."""
        if not await self._poll_once() and self.policy.snapshot is None:
            self._load_disk_copy()
        self.extras.start()
        for work in (self._poll, self.leasing.run, self.meter.run, self._watch, *self.observability.work()):
            self._tasks.append(asyncio.create_task(work(), name=f"gateway {work.__name__}"))

    async def stop(self) -> None:
        """Give leases back and upload what was metered; what cannot be uploaded stays in the spool."""
        await self.batches.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.extras.close()
        await self.leasing.close()
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
        self.batches.wake()
        return True

    def take(self, data: bytes) -> bool:
        """Put a snapshot document in force; a broken one is refused and the last good one keeps serving."""
        try:
            snapshot = load(data, self.policy.snapshot)
        except BrokenSnapshot as error:
            self.config_errors += 1
            log.error("config refused: %s", error)
            return False
        self._credentials.renew(snapshot.credentials)
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
            taken = self.take(self.snapshot_path.read_bytes())
        except OSError:
            log.warning("no disk copy of the config: waiting for the control plane")
            return
        said = "serving from it" if taken else "broken, so not ready until the control plane answers"
        log.warning("the control plane is away; the disk copy %s: %s", self.snapshot_path, said)

    # --- deployments --------------------------------------------------------------------------------------------

    @property
    def requests_held(self) -> int:
        """How many wait for a deployment to wake."""
        return sum(self._held.values())

    async def choose(self, exchange: Exchange) -> Deployment:
        """A deployment, waiting for a sleeping one to wake where the endpoint says so. Raises Rejected."""
        policy = self.policy
        while (chosen := policy.choose(exchange, time.monotonic())) is None:
            asleep = sleeping(exchange)
            if asleep is None:
                raise Rejected("no_deployment", retry_after_s=1)
            await self._wake(exchange, asleep)
            policy.readmit(exchange, now_ms())
            await self.leasing.reserve(exchange)
        return chosen

    async def _wake(self, exchange: Exchange, asleep: Deployment) -> None:
        """Ask for the wake-up and hold the request until the config changes."""
        assert exchange.endpoint is not None
        rules = exchange.endpoint.policy
        left_s = exchange.arrived_s + rules.hold_s - time.monotonic()
        held = self._held.get(asleep.id, 0)
        if left_s <= 0 or held >= rules.hold_queue:
            raise _starting()
        order_wake(self.policy.book, asleep, now_ms())
        self._held[asleep.id] = held + 1
        if self._swapped is None:
            self._swapped = asyncio.get_running_loop().create_future()
        try:
            changed, _ = await asyncio.wait([self._swapped], timeout=left_s)
        finally:
            self._held[asleep.id] -= 1
        if not changed:
            raise _starting()

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
            self.tend()

    def tend(self) -> None:
        """What is due once a second."""
        snapshot = self.policy.snapshot
        for endpoint in snapshot.endpoints.values() if snapshot else ():
            for tier in endpoint.tiers:
                eject_outliers(tier, time.monotonic())
        for deployment in snapshot.deployments.values() if snapshot else ():
            fade(deployment)


def _starting() -> Rejected:
    return Rejected("no_deployment", "The model is starting. Try again shortly.", retry_after_s=5)
