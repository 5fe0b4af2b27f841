"""One pod's life on its node: image, configuration, start, crashes and restarts, end."""

import asyncio
from collections import deque
from contextlib import suppress

from foundry_local.kube import containers as spec
from foundry_local.kube.engines import EngineContainer, EngineHost, TwinBuilder
from foundry_local.kube.events import Recorder
from foundry_local.kube.faults import FaultBoard
from foundry_local.kube.podstatus import ContainerState, Exit, write_status
from foundry_local.kube.resources import PODS
from foundry_local.kube.store import Store
from foundry_local.kube.types import Obj, dig, name_of, namespace_of, now_micro_text, now_text
from foundry_local.twin import TwinServer

LOG_LINES = 2000
_MIN_WAIT_S = 0.02
_JOB_RUN_S = 2.0
_PULL_S = 1.0
_RETRY_S = 5.0
_BACKOFF_S = (10.0, 300.0)


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
        self.logs: deque[str] = deque(maxlen=LOG_LINES)
        self.previous_logs: deque[str] = deque(maxlen=LOG_LINES)
        self._store = store
        self._recorder = recorder
        self._faults = faults
        self._host_ip, self.pod_ip = addresses
        self._speed = speed
        self._resume = resume
        self._restart_policy = str(pod["spec"].get("restartPolicy", "Always"))
        self._state = ContainerState()
        self._engine: EngineContainer | None = None
        if container := spec.engine_container(pod):
            host = EngineHost(lambda: self.pod, self.log, self._warn, self.scaled)
            self._engine = EngineContainer(container, host, store, faults, build_twin)
        if resume:
            statuses = dig(pod, "status", "containerStatuses", default=[])
            self._state.restarts = max((item.get("restartCount", 0) for item in statuses), default=0)

    @property
    def pod(self) -> Obj:
        """The pod as it is now; where it is gone, so is the reason for this worker."""
        found = self._store.peek(PODS, self.namespace, self.name)
        if found is None:
            raise asyncio.CancelledError
        return found

    @property
    def twin(self) -> TwinServer | None:
        return self._engine.twin if self._engine else None

    def address(self, port: int) -> tuple[str, int] | None:
        """Where a container port of this pod really is, if something listens there."""
        return self._engine.address(port) if self._engine else None

    def scaled(self, seconds: float) -> float:
        return max(seconds / self._speed, _MIN_WAIT_S)

    def log(self, line: str) -> None:
        self.logs.append(f"{now_micro_text()} {line}")

    def _event(self, reason: str, message: str, *, warning: bool = False) -> None:
        self._recorder.record(self.pod, reason, message, source="kubelet", warning=warning)

    def _warn(self, reason: str, message: str) -> None:
        self._event(reason, message, warning=True)

    def _publish(self, phase: str) -> None:
        def edit(pod: Obj) -> None:
            write_status(pod, phase, self._state, self._host_ip, self.pod_ip)

        self._store.mutate(PODS, self.namespace, self.name, edit)

    def _publish_probes(self, started: bool, ready: bool) -> None:
        self._state.passed_startup, self._state.ready = started, ready
        self._publish("Running")

    async def run(self) -> None:
        """Until the pod has finished; cancelling this stops what runs."""
        try:
            while True:
                await self._prepare()
                ended = await self._run_containers()
                self._resume = False
                if not self._restarts(ended):
                    self._conclude(ended)
                    return
                await self._back_off(ended)
        finally:
            await self.drain(0.0)

    async def _prepare(self) -> None:
        """Pull the image and wait for what the pod mounts; publishes why it waits."""
        if not self._resume:
            self._wait_for("ContainerCreating", "")
            await self._pull()
        while message := spec.missing_volumes(self._store, self.pod):
            self._wait_for("ContainerCreating", "")
            self._warn("FailedMount", message)
            await asyncio.sleep(self.scaled(_RETRY_S))
        while message := self._missing_config():
            self._wait_for("CreateContainerConfigError", message)
            self._warn("Failed", f"Error: {message}")
            await asyncio.sleep(self.scaled(_RETRY_S))

    def _wait_for(self, reason: str, message: str) -> None:
        self._state.waiting, self._state.ready = (reason, message), False
        self._publish("Running" if self._state.restarts else "Pending")

    async def _pull(self) -> None:
        image = self.pod["spec"]["containers"][0]["image"]
        self._event("Pulling", f'Pulling image "{image}"')
        first = True
        while self._faults.has(self.pod, "image-pull"):
            self._fail_pull(image, first=first)
            first = False
            with suppress(TimeoutError):
                await asyncio.wait_for(self._faults.changed(), self.scaled(_BACKOFF_S[0]))
        await asyncio.sleep(self.scaled(_PULL_S))
        self._event("Pulled", f'Successfully pulled image "{image}"')

    def _fail_pull(self, image: str, *, first: bool) -> None:
        message = f'failed to pull and unpack image "{image}": failed to resolve reference: not found'
        if first:
            self._warn("Failed", f'Failed to pull image "{image}": {message}')
            self._wait_for("ErrImagePull", message)
        else:
            self._warn("BackOff", f'Back-off pulling image "{image}"')
            self._wait_for("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {message}')

    def _missing_config(self) -> str:
        try:
            for container in self.pod["spec"]["containers"]:
                spec.environment(self._store, self.pod, container)
            spec.architecture_of(self._store, self.pod)
        except spec.ConfigError as problem:
            return str(problem)
        return ""

    async def _run_containers(self) -> Exit:
        """Start the containers; returns when they end."""
        last, last_started_at = self._state.last, self._state.last_started_at
        self._state = ContainerState(self._state.restarts, None, now_text(), last=last, last_started_at=last_started_at)
        self._publish("Running")
        if not self._resume:
            for container in self.pod["spec"]["containers"]:
                self._event("Started", f"Started container {container['name']}")
        if self._faults.strike(self.pod, "oom-killed"):
            self.log("Killed")
            return 137, "OOMKilled", ""
        if self._faults.strike(self.pod, "crash-loop"):
            self.log("Traceback (most recent call last): RuntimeError: injected fault")
            return 1, "Error", "injected fault"
        return await (self._run_engine(self._engine) if self._engine else self._run_other())

    async def _run_other(self) -> Exit:
        """A container that is no engine: nothing is executed. With a restart policy of Always it stays; else it
        completes."""
        self.log("started (simulated: nothing is executed)")
        self._publish_probes(True, True)
        if self._restart_policy == "Always":
            await asyncio.Event().wait()
        await asyncio.sleep(self.scaled(_JOB_RUN_S))
        if self._faults.strike(self.pod, "job-failed"):
            self.log("error: injected fault")
            return 1, "Error", "injected fault"
        self.log("completed")
        return 0, "Completed", ""

    async def _run_engine(self, engine: EngineContainer) -> Exit:
        ended = await engine.start(resume=self._resume)
        if ended is not None:
            return ended
        if engine.twin is not None:
            self._announce(engine.twin.url)
        try:
            return await engine.watch(self._publish_probes, resume=self._resume)
        finally:
            self._state.ready = False
            await engine.stop(0.0)

    def _announce(self, url: str) -> None:
        def edit(pod: Obj) -> None:
            pod["metadata"].setdefault("annotations", {})[spec.LOCAL_URL_ANNOTATION] = url

        self._store.mutate(PODS, self.namespace, self.name, edit)

    def _restarts(self, ended: Exit) -> bool:
        return self._restart_policy == "Always" or (self._restart_policy == "OnFailure" and ended[0] != 0)

    def _conclude(self, ended: Exit) -> None:
        self._state.ended, self._state.ready = ended, False
        self._publish("Succeeded" if ended[0] == 0 else "Failed")

    async def _back_off(self, ended: Exit) -> None:
        """CrashLoopBackOff: 10 s, doubling to five minutes; the first restart is immediate."""
        restarts = self._state.restarts
        self._state.last, self._state.last_started_at = ended, self._state.started_at
        self._state.ready, self._state.ended = False, ended
        self.previous_logs, self.logs = self.logs, deque(maxlen=LOG_LINES)
        delay_s = min(_BACKOFF_S[0] * 2 ** max(restarts - 1, 0), _BACKOFF_S[1])
        if restarts:
            name = self.pod["spec"]["containers"][0]["name"]
            self._warn("BackOff", f"Back-off restarting failed container {name} in pod {self.name}")
            message = f"back-off {delay_s:.0f}s restarting failed container={name} pod={self.name}_{self.namespace}"
            self._state.waiting = ("CrashLoopBackOff", message)
        self._publish("Running")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._faults.changed(), self.scaled(delay_s if restarts else 1.0))
        self._state.restarts += 1

    async def drain(self, grace_s: float) -> None:
        """Stop listening and let running requests finish, for at most `grace_s` real seconds."""
        if self._engine is not None:
            await self._engine.stop(grace_s)
