"""An engine container: its command line becomes a twin, its probes decide whether it is started, ready and alive."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from foundry_local.kube import containers as spec
from foundry_local.kube.faults import FaultBoard
from foundry_local.kube.podstatus import Exit
from foundry_local.kube.probes import ProbeState, probe_http
from foundry_local.kube.resources import NODES
from foundry_local.kube.store import Store
from foundry_local.kube.types import Obj, annotations_of, dig, labels_of
from foundry_local.twin import EngineOptions, OptionsError, StartupError, TwinServer, parse_options

MAX_LOAD_S = 5.0
# A probe that passes is repeated at most this often, however fast the cluster's time runs.
_STEADY_PERIOD_S = 1.0

TwinBuilder = Callable[[EngineOptions, str, str | Mapping[str, Any] | None, int], TwinServer]


class EngineHost:
    """What an engine container needs of its pod's worker."""

    def __init__(
        self,
        pod: Callable[[], Obj],
        log: Callable[[str], None],
        event: Callable[[str, str], None],
        wait: Callable[[float], float],
    ) -> None:
        self.pod = pod
        self.log = log
        self.event = event
        self.scaled = wait


class EngineContainer:
    """One engine over its restarts."""

    def __init__(self, container: Obj, host: EngineHost, store: Store, faults: FaultBoard, build: TwinBuilder) -> None:
        self.container = container
        self.twin: TwinServer | None = None
        self._listening = 0
        self._host = host
        self._store = store
        self._faults = faults
        self._build = build

    async def start(self, *, resume: bool) -> Exit | None:
        """Load and listen; an Exit where the real engine would end while it starts."""
        try:
            self.twin = await self._load(resume=resume)
        except (OptionsError, StartupError) as problem:
            for line in str(problem).splitlines():
                self._host.log(f"ERROR {line}")
            return (2 if isinstance(problem, OptionsError) else 1), "Error", str(problem)
        self._host.log(f"INFO: Application startup complete. Listening on {self.twin.url} for port {self._listening}")
        return None

    async def _load(self, *, resume: bool) -> TwinServer:
        pod = self._host.pod()
        values = spec.environment(self._store, pod, self.container)
        options = parse_options(spec.command_line(self.container, values), values)
        self._listening = options.port
        size = f"tensor_parallel_size={options.tensor_parallel}"
        self._host.log(f"INFO twin engine starting: model={options.model} {size}")
        if options.ignored:
            self._host.log(f"WARNING the twin ignores {' '.join(options.ignored)}")
        self._check_devices(options)
        architecture = spec.architecture_of(self._store, pod)
        twin = self._build(options, self._device(pod), architecture, _preferred_port(pod))
        self._host.log(f"INFO GPU KV cache size: {twin.engine.model.kv_tokens:,} tokens")
        if not resume:
            await asyncio.sleep(min(self._host.scaled(twin.engine.model.load_s), MAX_LOAD_S))
        await twin.start()
        return twin

    def _check_devices(self, options: EngineOptions) -> None:
        devices = int(str(dig(self.container, "resources", "limits", "nvidia.com/gpu", default=0)))
        world = options.tensor_parallel * options.pipeline_parallel * options.data_parallel
        if devices and world > devices:
            raise StartupError(
                f"ValueError: World size ({world}) is larger than the number of available GPUs ({devices}) "
                "in this node."
            )

    def _device(self, pod: Obj) -> str:
        labels = labels_of(self._store.peek(NODES, "", pod["spec"]["nodeName"]) or {"metadata": {}})
        product = labels.get("nvidia.com/gpu.product", "")
        if not product:
            raise StartupError("RuntimeError: Failed to infer device type: the node has no GPU label")
        return product.removesuffix("-SHARED")

    def address(self, port: int) -> tuple[str, int] | None:
        """Where a container port really is, if something listens there."""
        if self.twin is None or port != self._listening or self._faults.has(self._host.pod(), "never-ready"):
            return None
        return "127.0.0.1", self.twin.port

    async def watch(self, publish: Callable[[bool, bool], None], *, resume: bool) -> Exit:
        """Probe until startup or liveness gives up or a fault strikes; `publish(started, ready)` on each change."""
        startup = spec.http_probe(self.container, "startupProbe")
        if startup is not None and not await self._startup(startup):
            return 137, "Error", "startup probe failed"
        publish(True, False)
        readiness = spec.http_probe(self.container, "readinessProbe")
        tasks = [
            asyncio.ensure_future(self._readiness(readiness, publish, resume=resume)),
            asyncio.ensure_future(self._liveness(spec.http_probe(self.container, "livenessProbe"))),
            asyncio.ensure_future(self._struck()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task.result() for task in tasks if task.done())
        finally:
            for task in tasks:
                task.cancel()

    async def _struck(self) -> Exit:
        while True:
            await self._faults.changed()
            if self._faults.strike(self._host.pod(), "oom-killed"):
                return 137, "OOMKilled", ""
            if self._faults.strike(self._host.pod(), "crash-loop"):
                return 1, "Error", "injected fault"

    async def _startup(self, probe: spec.HttpProbe) -> bool:
        state = ProbeState(probe, passing=False)
        await asyncio.sleep(self._host.scaled(probe.initial_delay_s))
        while not state.passing:
            await self._probe(probe, state, "Startup")
            if state.exhausted:
                return False
            if not state.passing:
                await asyncio.sleep(self._host.scaled(probe.period_s))
        return True

    async def _readiness(
        self, probe: spec.HttpProbe | None, publish: Callable[[bool, bool], None], *, resume: bool
    ) -> Exit:
        if probe is None:
            publish(True, True)
            return await _forever()
        state, shown = ProbeState(probe, passing=False), False
        await asyncio.sleep(0 if resume else self._host.scaled(probe.initial_delay_s))
        while True:
            await self._probe(probe, state, "Readiness")
            if state.passing != shown:
                shown = state.passing
                publish(True, shown)
            await asyncio.sleep(self._pause_s(probe, state))

    async def _liveness(self, probe: spec.HttpProbe | None) -> Exit:
        if probe is None:
            return await _forever()
        state = ProbeState(probe, passing=True)
        await asyncio.sleep(self._host.scaled(probe.initial_delay_s))
        while not state.exhausted:
            await self._probe(probe, state, "Liveness")
            await asyncio.sleep(self._pause_s(probe, state))
        self._host.event("Killing", f"Container {self.container['name']} failed liveness probe, will be restarted")
        return 137, "Error", "liveness probe failed"

    def _pause_s(self, probe: spec.HttpProbe, state: ProbeState) -> float:
        scaled = self._host.scaled(probe.period_s)
        return min(probe.period_s, max(scaled, _STEADY_PERIOD_S)) if state.steady else scaled

    async def _probe(self, probe: spec.HttpProbe, state: ProbeState, kind: str) -> None:
        host = dig(self._host.pod(), "status", "podIP", default="")
        problem = await probe_http(probe, self.address(probe.port), host)
        state.record(not problem)
        if problem:
            self._host.event("Unhealthy", f"{kind} probe failed: {problem}")

    async def stop(self, grace_s: float) -> None:
        """Stop listening, and let running requests finish for at most `grace_s` real seconds."""
        twin, self.twin = self.twin, None
        if twin is not None:
            await twin.stop(grace_s)


async def _forever() -> Exit:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def _preferred_port(pod: Obj) -> int:
    """The port of the run before, so that addresses survive a restart of the platform."""
    port = annotations_of(pod).get(spec.LOCAL_URL_ANNOTATION, "").rpartition(":")[2]
    return int(port) if port.isdigit() else 0
