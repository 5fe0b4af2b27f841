"""The simulated cluster as one object: API server, controllers, kubelets, snapshots."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any, Protocol

import yaml

from foundry_local.kube.api import KubeApi, token_check
from foundry_local.kube.deletion import Deleter
from foundry_local.kube.deployments import Deployments
from foundry_local.kube.engines import TwinBuilder
from foundry_local.kube.events import Recorder
from foundry_local.kube.faults import Fault, FaultBoard
from foundry_local.kube.jobs import Jobs
from foundry_local.kube.kubelet import Kubelet
from foundry_local.kube.namespaces import Namespaces
from foundry_local.kube.nodes import demo_nodes
from foundry_local.kube.replicasets import ReplicaSets
from foundry_local.kube.resources import CRDS, EVENTS, LEASES, ResourceRegistry
from foundry_local.kube.scheduler import Scheduler
from foundry_local.kube.services import Services
from foundry_local.kube.store import Change, Store
from foundry_local.kube.subresources import Subresources
from foundry_local.kube.types import Obj
from foundry_local.kube.watch import Watches
from foundry_local.kube.writes import Writer
from foundry_local.twin import build_twin
from foundry_local.twin.server import LoopServer

logger = logging.getLogger(__name__)

STATE_FORMAT = 1
SPEED = 20.0
_TICK_S = 1.0
_MAX_PASSES = 50


class Reconciler(Protocol):
    """One level-triggered pass: bring the store closer to what its objects ask for."""

    def reconcile(self) -> None: ...


class SimulatedCluster:
    """A Kubernetes cluster in this process, on one loopback port, in the running event loop.

    Args:
        nodes: Node objects of a fresh cluster; None takes `demo_nodes()`. A restored snapshot keeps its own.
        state_path: JSON file to restore from and to snapshot to; None keeps everything in memory.
        token: bearer token of the administrator; None restores or makes one.
        port: API port; 0 takes the one of the snapshot, else a free one.
        speed: divides every waiting time of manifests and controllers (probe periods, back-off, deadlines, loading).
        snapshot_interval_s: write changed state this often; None only on `stop`.
        build_engine: makes the twin of an engine pod; tests pass quicker ones.
    """

    def __init__(
        self,
        nodes: list[Obj] | None = None,
        state_path: Path | str | None = None,
        token: str | None = None,
        *,
        port: int = 0,
        speed: float = SPEED,
        snapshot_interval_s: float | None = 2.0,
        build_engine: TwinBuilder | None = None,
    ) -> None:
        self._nodes = demo_nodes() if nodes is None else nodes
        self._state_path = Path(state_path) if state_path else None
        self.token = token or ""
        self._port = port
        self._speed = speed
        self._snapshot_interval_s = snapshot_interval_s
        self._build_engine = build_engine or _build_engine
        self._service_tokens: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._saved_revision = -1

    async def start(self) -> None:
        """Restore or bootstrap, then serve.

        Raises:
            ValueError: the state file is not a snapshot of this program.
            OSError: no port can be bound.
        """
        self._assemble()
        restored = self._restore()
        self.token = self.token or secrets.token_urlsafe(32)
        self.namespaces.bootstrap([] if restored else self._nodes)
        self.kubelet.resume()
        self._reconcile()
        self._server = LoopServer(self.api, self._port)
        await self._server.start()
        self._port = self._server.port
        self._dirty.set()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._control(), name="kube controllers")]
        if self._state_path and self._snapshot_interval_s:
            self._tasks.append(loop.create_task(self._keep_saving(self._snapshot_interval_s), name="kube snapshots"))

    def _assemble(self) -> None:
        self.store = Store()
        self.registry = ResourceRegistry()
        self.faults = FaultBoard()
        self.recorder = Recorder(self.store)
        self.writer = Writer(self.store, self.registry)
        self.deleter = Deleter(self.store, self.registry)
        self.namespaces = Namespaces(self.store, self.writer, self.deleter)
        parts = (self.store, self.writer, self.deleter, self.recorder, self._speed)
        workloads = [Deployments(*parts), ReplicaSets(*parts), Jobs(*parts)]
        self.scheduler = Scheduler(self.store, self.recorder)
        self.kubelet = Kubelet(self.store, self.recorder, self.deleter, self.faults, self._build_engine, self._speed)
        self.services = Services(self.store, self.kubelet)
        self._controllers: list[Reconciler] = [self.namespaces, *workloads, self.scheduler, self.kubelet, self.services]
        self._watches = Watches(self.store)
        tokens = token_check(lambda: [self.token, *self._service_tokens.values()])
        self.api = KubeApi(self.store, self.registry, self.writer, self.deleter, self._watches, tokens)
        subresources = Subresources(
            self.store, self.writer, self.deleter, self.kubelet, self.services, self._issue_token
        )
        subresources.install(self.api)
        self._dirty = asyncio.Event()
        self.store.subscribe(self._on_change)

    def _issue_token(self, namespace: str, account: str) -> str:
        return self._service_tokens.setdefault(f"{namespace}/{account}", secrets.token_urlsafe(32))

    def _on_change(self, change: Change) -> None:
        if change.resource not in (EVENTS, LEASES):
            self._dirty.set()

    async def _control(self) -> None:
        """Reconcile after changes until nothing changes any more, and once a second for what time alone changes."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._dirty.wait(), _TICK_S)
            try:
                self._reconcile()
            except Exception:
                logger.exception("a controller of the simulated cluster failed")
                await asyncio.sleep(_TICK_S)

    def _reconcile(self) -> None:
        for _ in range(_MAX_PASSES):
            self._dirty.clear()
            for controller in self._controllers:
                controller.reconcile()
            self.deleter.collect()
            if not self._dirty.is_set():
                return

    async def stop(self) -> None:
        """Stop serving, save the state, stop every twin. Running pods stay Running in the snapshot."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._watches.close()
        await self._server.stop()
        self.save()
        self.services.stop()
        await self.kubelet.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    def kubeconfig(self) -> Obj:
        """A kubeconfig with one context, for the administrator."""
        name = "foundry-local"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url}}],
            "users": [{"name": name, "user": {"token": self.token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        }

    def kubeconfig_yaml(self) -> str:
        text: str = yaml.safe_dump(self.kubeconfig(), sort_keys=False)
        return text

    def inject(self, fault: Fault) -> None:
        """Let something go wrong; see `Fault`."""
        self.faults.inject(fault)
        self._dirty.set()

    def clear_faults(self) -> None:
        self.faults.clear()
        self._dirty.set()

    def _restore(self) -> bool:
        if self._state_path is None or not self._state_path.exists():
            return False
        try:
            state = json.loads(self._state_path.read_bytes())
            if state["format"] != STATE_FORMAT:
                raise ValueError(f"format {state['format']}")
            self.store.load(state["store"])
        except (ValueError, KeyError, TypeError) as problem:
            raise ValueError(f"{self._state_path} is no snapshot of a simulated cluster; remove it") from problem
        self.registry.set_custom(self.store.select(CRDS))
        self._port = self._port or int(state["port"])
        self.token = self.token or str(state["token"])
        self._service_tokens = dict(state["service_tokens"])
        return True

    async def _keep_saving(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            if self.store.revision == self._saved_revision or self._state_path is None:
                continue
            content, revision = self._dump(), self.store.revision
            try:
                await asyncio.to_thread(write_atomically, self._state_path, content)
                self._saved_revision = revision
            except OSError:
                logger.exception("cannot write %s", self._state_path)

    def save(self) -> None:
        """Write the snapshot now, if anything has changed since the last one."""
        if self._state_path is not None and self.store.revision != self._saved_revision:
            write_atomically(self._state_path, self._dump())
            self._saved_revision = self.store.revision

    def _dump(self) -> bytes:
        state = {"format": STATE_FORMAT, "port": self._port, "token": self.token, "store": self.store.dump()}
        return json.dumps(state | {"service_tokens": self._service_tokens}, separators=(",", ":")).encode()


def _build_engine(options: Any, device: str, architecture: Any, port: int) -> Any:
    return build_twin(options, device, architecture, port=port)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that a crash leaves the old or the new content; readable by the owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
