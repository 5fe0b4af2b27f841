"""One pod's life on its node: image, configuration, start, probes, crashes and restarts, end."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from foundry_local.kube import containers as spec
from foundry_local.kube.events import Recorder
from foundry_local.kube.faults import FaultBoard
from foundry_local.kube.podstatus import ContainerState, Exit, write_status
from foundry_local.kube.probes import ProbeState, probe_http
from foundry_local.kube.resources import NODES, PODS
from foundry_local.kube.store import Store
from foundry_local.kube.types import (
    Obj,
    annotations_of,
    dig,
    labels_of,
    name_of,
    namespace_of,
    now_micro_text,
    now_text,
)
from foundry_local.twin import EngineOptions, OptionsError, StartupError, TwinServer, parse_options

LOG_LINES = 2000
MAX_LOAD_S = 5.0
_MIN_WAIT_S = 0.02
_JOB_RUN_S = 2.0
_BACKOFF_S = (10.0, 300.0)

TwinBuilder = Callable[[EngineOptions, str, str | Mapping[str, Any] | None, int], TwinServer]


class PodWorker:
    """Drives one pod that is bound to a node. `speed` divides every waiting time that the manifest asks for."""

    def __init__(
        self,
        pod: Obj,
        *,
        store: Store,
        recorder: Recorder,
        faults: FaultBoard,
        build_twin: TwinBuilder,
        addresses: tuple[str, str],
        speed: float,
        resume: bool,
    ) -> None:
        self.namespace, self.name = namespace_of(pod), name_of(pod)
        self.node = str(pod["spec"]["nodeName"])
        self.twin: TwinServer | None = None
        self.logs: deque[str] = deque(maxlen=LOG_LINES)
        self.previous_logs: deque[str] = deque(maxlen=LOG_LINES)
        self._store = store
        self._recorder = recorder
        self._faults = faults
        self._build_twin = build_twin
        self._host_ip, self.pod_ip = addresses
        self._speed = speed
        self._resume = resume
        self._engine = spec.engine_container(pod)
        self._restart_policy = str(pod["spec"].get("restartPolicy", "Always"))
        self._state = ContainerState()
        self._listening = 0
        if resume:
            statuses = dig(pod, "status", "containerStatuses", default=[])
            self._state.restarts = max((item.get("restartCount", 0) for item in statuses), default=0)

    @property
    def pod(self) -> Obj:
        found = self._store.peek(PODS, self.namespace, self.name)
        if found is None:
            raise asyncio.CancelledError
        return found

    def scaled(self, seconds: float) -> float:
        return max(seconds / self._speed, _MIN_WAIT_S)

    def log(self, line: str) -> None:
        self.logs.append(f"{now_micro_text()} {line}")

    def _event(self, reason: str, message: str, *, warning: bool = False) -> None:
        self._recorder.record(self.pod, reason, message, source="kubelet", warning=warning)

    def _publish(self, phase: str) -> None:
        def edit(pod: Obj) -> None:
            write_status(pod, phase, self._state, self._host_ip, self.pod_ip)

        self._store.mutate(PODS, self.namespace, self.name, edit)

    async def run(self) -> None:
        """Until the pod has finished; cancelling this stops what runs."""
        try:
            while True:
                await self._prepare()
                ended = await self._run_containers()
                if not self._restarts(ended):
                    self._conclude(ended)
                    return
                await self._back_off(ended)
        finally:
            await self._stop_twin(0.0)

    async def _prepare(self) -> None:
        """Pull the image and wait for what the pod mounts; publishes why it waits."""
        self._wait_for("ContainerCreating", "")
        await self._pull()
        while message := spec.missing_volumes(self._store, self.pod):
            self._event("FailedMount", message, warning=True)
            await asyncio.sleep(self.scaled(5.0))
        while (message := self._missing_config()) is not None:
            self._wait_for("CreateContainerConfigError", message)
            self._event("Failed", f"Error: {message}", warning=True)
            await asyncio.sleep(self.scaled(5.0))

    def _wait_for(self, reason: str, message: str) -> None:
        self._state.waiting, self._state.ready = (reason, message), False
        self._publish("Pending" if not self._state.restarts else "Running")

    async def _pull(self) -> None:
        image = self.pod["spec"]["containers"][0]["image"]
        self._event("Pulling", f'Pulling image "{image}"')
        reason = "ErrImagePull"
        while self._faults.has(self.pod, "image-pull"):
            message = f'failed to pull and unpack image "{image}": failed to resolve reference: not found'
            if reason == "ErrImagePull":
                self._event("Failed", f'Failed to pull image "{image}": {message}', warning=True)
            else:
                message = f'Back-off pulling image "{image}"'
                self._event("BackOff", message, warning=True)
            self._wait_for(reason, message)
            reason = "ImagePullBackOff"
            with suppress(TimeoutError):
                await asyncio.wait_for(self._faults.changed(), self.scaled(10.0))
        if not self._resume:
            await asyncio.sleep(self.scaled(1.0))
        self._event("Pulled", f'Successfully pulled image "{image}"')

    def _missing_config(self) -> str | None:
        try:
            for container in self.pod["spec"]["containers"]:
                spec.environment(self._store, self.pod, container)
            spec.architecture_of(self._store, self.pod)
        except spec.ConfigError as problem:
            return str(problem)
        return None

    async def _run_containers(self) -> Exit:
        """Start the containers; returns when they end."""
        self._state = ContainerState(
            restarts=self._state.restarts,
            waiting=None,
            started_at=now_text(),
            last=self._state.last,
            last_started_at=self._state.last_started_at,
        )
        names = [container["name"] for container in self.pod["spec"]["containers"]]
        for name in names:
            self._event("Started", f"Started container {name}")
        self._publish("Running")
        if self._faults.strike(self.pod, "oom-killed"):
            self.log("Killed")
            return 137, "OOMKilled", ""
        if self._faults.strike(self.pod, "crash-loop"):
            self.log("Traceback (most recent call last): RuntimeError: injected fault")
            return 1, "Error", "injected fault"
        return await (self._run_engine() if self._engine else self._run_other())

    async def _run_other(self) -> Exit:
        """A container that is no engine: nothing is executed. With a restart policy of Always it stays; else it
        completes."""
        self.log("started (simulated: nothing is executed)")
        if self._restart_policy == "Always":
            self._become_ready()
            await asyncio.Event().wait()
        self._become_ready()
        await asyncio.sleep(self.scaled(_JOB_RUN_S))
        if self._faults.strike(self.pod, "job-failed"):
            self.log("error: injected fault")
            return 1, "Error", "injected fault"
        self.log("completed")
        return 0, "Completed", ""

    def _become_ready(self) -> None:
        self._state.ready = self._state.passed_startup = True
        self._publish("Running")

    async def _run_engine(self) -> Exit:
        try:
            twin = await self._load_engine()
        except (OptionsError, StartupError) as problem:
            for line in str(problem).splitlines():
                self.log(f"ERROR {line}")
            return (2 if isinstance(problem, OptionsError) else 1), "Error", str(problem)
        await twin.start()
        self.twin = twin
        self._announce(twin.url)
        self.log(f"INFO: Application startup complete. Listening on {twin.url} for port {self._listening}")
        try:
            return await self._watch_engine()
        finally:
            self._state.ready = False
            await self._stop_twin(0.0)

    async def _load_engine(self) -> TwinServer:
        pod, engine = self.pod, self._engine or {}
        values = spec.environment(self._store, pod, engine)
        options = parse_options(spec.command_line(engine, values), values)
        self._listening = options.port
        self.log(f"INFO twin engine starting: model={options.model} tensor_parallel_size={options.tensor_parallel}")
        if options.ignored:
            self.log(f"WARNING the twin ignores {' '.join(options.ignored)}")
        self._check_devices(options, engine)
        architecture = spec.architecture_of(self._store, pod)
        twin = self._build_twin(options, self._device(), architecture, self._preferred_port())
        model = twin.engine.model
        self.log(f"INFO GPU KV cache size: {model.kv_tokens:,} tokens")
        if not self._resume:
            await asyncio.sleep(min(self.scaled(model.load_s), MAX_LOAD_S))
        self._resume = False
        return twin

    def _check_devices(self, options: EngineOptions, engine: Obj) -> None:
        limits = dig(engine, "resources", "limits", default={})
        devices = int(str(limits.get("nvidia.com/gpu", 0)))
        world = options.tensor_parallel * options.pipeline_parallel * options.data_parallel
        if devices and world > devices:
            raise StartupError(
                f"ValueError: World size ({world}) is larger than the number of available GPUs ({devices}) "
                "in this node."
            )

    def _device(self) -> str:
        labels = labels_of(self._store.peek(NODES, "", self.node) or {"metadata": {}})
        product = labels.get("nvidia.com/gpu.product", "")
        if not product:
            raise StartupError("RuntimeError: Failed to infer device type: the node has no GPU label")
        return product.removesuffix("-SHARED")

    def _preferred_port(self) -> int:
        """The port of the run before, so that addresses survive a restart of the platform."""
        url = annotations_of(self.pod).get(spec.LOCAL_URL_ANNOTATION, "")
        port = url.rpartition(":")[2]
        return int(port) if port.isdigit() else 0

    def _announce(self, url: str) -> None:
        def edit(pod: Obj) -> None:
            pod["metadata"].setdefault("annotations", {})[spec.LOCAL_URL_ANNOTATION] = url

        self._store.mutate(PODS, self.namespace, self.name, edit)

    def address(self, port: int) -> tuple[str, int] | None:
        """Where a container port of this pod really is, if something listens there."""
        if self.twin is None or port != self._listening or self._faults.has(self.pod, "never-ready"):
            return None
        return "127.0.0.1", self.twin.port

    async def _watch_engine(self) -> Exit:
        """Probe until liveness or startup gives up, or a fault strikes."""
        engine = self._engine or {}
        startup = spec.http_probe(engine, "startupProbe")
        if startup is not None and not await self._startup(startup):
            return 137, "Error", "startup probe failed"
        self._state.passed_startup = True
        jobs = [asyncio.ensure_future(self._readiness(spec.http_probe(engine, "readinessProbe")))]
        liveness = spec.http_probe(engine, "livenessProbe")
        dead = asyncio.ensure_future(self._liveness(liveness))
        struck = asyncio.ensure_future(self._struck())
        try:
            await asyncio.wait({dead, struck, *jobs}, return_when=asyncio.FIRST_COMPLETED)
            for task in (struck, dead, *jobs):
                if task.done() and (exit_info := task.result()):
                    return exit_info
            return 1, "Error", ""
        finally:
            for task in (dead, struck, *jobs):
                task.cancel()

    async def _struck(self) -> Exit:
        while True:
            await self._faults.changed()
            if self._faults.strike(self.pod, "oom-killed"):
                return 137, "OOMKilled", ""
            if self._faults.strike(self.pod, "crash-loop"):
                return 1, "Error", "injected fault"

    async def _startup(self, probe: spec.HttpProbe) -> bool:
        state = ProbeState(probe, passing=False)
        await asyncio.sleep(self.scaled(probe.initial_delay_s))
        while not state.passing:
            await self._probe(probe, state, "Startup")
            if state.exhausted:
                return False
            if not state.passing:
                await asyncio.sleep(self.scaled(probe.period_s))
        return True

    async def _readiness(self, probe: spec.HttpProbe | None) -> Exit:
        if probe is None:
            self._become_ready()
            await asyncio.Event().wait()
            raise AssertionError("unreachable")
        state = ProbeState(probe, passing=False)
        if not self._resume:
            await asyncio.sleep(self.scaled(probe.initial_delay_s))
        while True:
            await self._probe(probe, state, "Readiness")
            if state.passing != self._state.ready:
                self._state.ready = state.passing
                self._publish("Running")
            await asyncio.sleep(self.scaled(probe.period_s))

    async def _liveness(self, probe: spec.HttpProbe | None) -> Exit:
        if probe is None:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")
        state = ProbeState(probe, passing=True)
        await asyncio.sleep(self.scaled(probe.initial_delay_s))
        while not state.exhausted:
            await self._probe(probe, state, "Liveness")
            await asyncio.sleep(self.scaled(probe.period_s))
        name = (self._engine or {})["name"]
        self._event("Killing", f"Container {name} failed liveness probe, will be restarted")
        return 137, "Error", "liveness probe failed"

    async def _probe(self, probe: spec.HttpProbe, state: ProbeState, kind: str) -> None:
        problem = await probe_http(probe, self.address(probe.port), self.pod_ip)
        state.record(not problem)
        if problem:
            self._event("Unhealthy", f"{kind} probe failed: {problem}", warning=True)

    def _restarts(self, ended: Exit) -> bool:
        return self._restart_policy == "Always" or (self._restart_policy == "OnFailure" and ended[0] != 0)

    def _conclude(self, ended: Exit) -> None:
        self._state.ended, self._state.ready = ended, False
        self._publish("Succeeded" if ended[0] == 0 else "Failed")

    async def _back_off(self, ended: Exit) -> None:
        """CrashLoopBackOff: 10 s, doubling to five minutes; the first restart is immediate."""
        self._state.last, self._state.last_started_at = ended, self._state.started_at
        self.previous_logs, self.logs = self.logs, deque(maxlen=LOG_LINES)
        delay_s = min(_BACKOFF_S[0] * 2 ** max(self._state.restarts - 1, 0), _BACKOFF_S[1])
        if self._state.restarts > 0:
            name = (self._engine or self.pod["spec"]["containers"][0])["name"]
            message = f"back-off {delay_s:.0f}s restarting failed container={name} pod={self.name}"
            self._event("BackOff", f"Back-off restarting failed container {name}", warning=True)
            self._state.waiting = ("CrashLoopBackOff", message)
        else:
            self._state.ended = ended
        self._state.ready = False
        self._publish("Running")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._faults.changed(), self.scaled(delay_s if self._state.restarts else 1.0))
        self._state.restarts += 1

    async def _stop_twin(self, grace_s: float) -> None:
        twin, self.twin = self.twin, None
        if twin is not None:
            await twin.stop(grace_s)

    async def drain(self, grace_s: float) -> None:
        """Stop listening and let running requests finish, for at most `grace_s` real seconds."""
        await self._stop_twin(grace_s)
