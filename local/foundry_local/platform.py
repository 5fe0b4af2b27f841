"""The whole platform on this machine: its parts, started in the order in which they need each other.

In this process: the emulator with all functions, and the front. In processes of their own, because their timing is
measured and must not wait for ours: the simulated cluster with its twin engines, and the gateway.
"""

import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import bootstrap, deployer, reconciler, uploads
from .bootstrap import BootstrapError, Credentials, UserPool
from .children import Child, answers
from .deployer import Deployment
from .emulator import Emulator
from .front import Front, Routes, api_upstream, gateway_upstream
from .serve import HOST, bind, wait_free
from .state import StateDir, Status, write_private

log = logging.getLogger(__name__)

Report = Callable[[Status], None]
# Handlers, the emulator and the front share one interpreter: hand it over ten times as often as by default, so that
# a search that computes for seconds adds little to every step of a small request.
_SWITCH_S = 0.0005


@dataclass(frozen=True)
class Options:
    """``root``: the checkout whose app is deployed; ``port``: as in :meth:`StateDir.ports`."""

    root: Path
    state: StateDir
    port: int | None = None


class Platform:
    """``start`` returns when the platform is ready; ``report`` hears of every step on the way."""

    def __init__(self, options: Options, report: Report = lambda _status: None) -> None:
        self._root, self._state, self._report = options.root, options.state, report
        self._ports = self._state.ports(options.port)
        self._stops: list[tuple[str, Callable[[], None]]] = []
        self.status = Status(state="starting", pid=os.getpid(), started_at_ms=_now_ms(), log=str(self._state.log))

    def start(self) -> None:
        sys.setswitchinterval(_SWITCH_S)
        # Taken at once: a port in use is better known before anything else is done.
        listener = bind(self._ports.front)
        cluster = self._spawn_cluster()
        self._step("Synthesize the stacks")
        deployer.synthesize(self._root, self._state.assembly, self._state.context)
        emulator = self._start_emulator()
        self._step("Deploy the stacks")
        deployment = deployer.deploy(self._state.assembly, emulator.url)
        emulator.open()
        self._start_front(listener, emulator, _output(deployment, "ApiUrl"))
        pool = UserPool(_output(deployment, "UserPoolId"), _output(deployment, "CliClientId"))
        self._start_gateway(pool)
        self._step("Wait for the cluster")
        cluster()
        self._step("Resume what was interrupted")
        with emulator.function_environment():
            reconciler.reconcile()
            uploads.announce_again(emulator.saved_at_s)
        self._ready(emulator, pool)

    def stop(self) -> None:
        """Stop every part, the last started first; the state is saved."""
        self.status.state = "stopping"
        self._report(self.status)
        while self._stops:
            name, stop = self._stops.pop()
            try:
                stop()
            except Exception:
                log.exception("the %s did not stop cleanly", name)

    def fail(self, message: str) -> None:
        """Tell readers of the status why the platform is not there."""
        self.status.state, self.status.error = "failed", message
        self._report(self.status)

    def _step(self, title: str) -> None:
        log.info("%s", title)
        self.status.step = title
        self._report(self.status)

    def _start_emulator(self) -> Emulator:
        self._step("Start the emulator")
        emulator = Emulator(self._state.emulator, self._ports.emulator)
        emulator.start()
        self._stops.append(("emulator", emulator.stop))
        return emulator

    def _start_front(self, listener: socket.socket, emulator: Emulator, endpoint: str) -> None:
        gateway = gateway_upstream(HOST, self._ports.gateway)
        server = Front(Routes({"v1": gateway}, api_upstream(HOST, emulator.port, _api_id(endpoint))), listener)
        server.start()
        self._stops.append(("front", server.stop))

    def _start_gateway(self, pool: UserPool) -> None:
        self._step("Create users")
        credentials = Credentials(self._state)
        bootstrap.create_users(pool, credentials)
        self._step("Start the gateway")
        self._state.gateway.mkdir(mode=0o700, exist_ok=True)
        token_file = self._state.gateway / "token"
        write_private(token_file, bootstrap.register_gateway(_url(self._ports.front), pool, credentials))
        environment = {
            "GATEWAY_CONTROL_PLANE_URL": _url(self._ports.front),
            "GATEWAY_TOKEN_FILE": str(token_file),
            "GATEWAY_GATEWAY_ID": bootstrap.GATEWAY,
            "GATEWAY_SPOOL_DIR": str(self._state.gateway / "spool"),
            "GATEWAY_CREDENTIALS_DIR": str(self._state.gateway / "provider-keys"),
            "GATEWAY_HOST": HOST,
            "GATEWAY_PORT": str(self._ports.gateway),
            "GATEWAY_WORKERS": "1",
        }
        gateway = Child("gateway", ["gateway"], _outside(environment), self._state.root / "gateway.log")
        self._stops.append(("gateway", gateway.stop))
        wait_free(self._ports.gateway)
        gateway.start(answers(self._ports.gateway, "/health/live"))

    def _spawn_cluster(self) -> Callable[[], None]:
        """Start the simulated cluster; the returned function waits until it answers."""
        state = self._state
        state.kubeconfig.unlink(missing_ok=True)
        command = ["foundry_local.cluster", str(state.kube), str(self._ports.kube), str(state.kubeconfig)]
        cluster = Child("cluster", command, _outside({}), state.root / "cluster.log")
        wait_free(self._ports.kube)
        cluster.spawn()
        self._stops.append(("cluster", cluster.stop))
        return lambda: cluster.wait(state.kubeconfig.exists)

    def _ready(self, emulator: Emulator, pool: UserPool) -> None:
        status = self.status
        status.api_url, status.aws_url, status.kube_url = _url(self._ports.front), emulator.url, _url(self._ports.kube)
        status.gateway_url = f"{_url(self._ports.gateway)}/v1"
        status.issuer, status.client_id, status.cognito_url = pool.issuer, pool.client_id, f"{emulator.url}/"
        status.kubeconfig, status.credentials = str(self._state.kubeconfig), str(self._state.credentials)
        status.state, status.step, status.ready_at_ms = "ready", "", _now_ms()
        self._report(status)


def _outside(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a process that is not part of AWS: no credentials of the emulator."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("AWS_")}, **environment}


def _output(deployment: Deployment, name: str) -> str:
    for outputs in deployment.outputs.values():
        if name in outputs:
            return outputs[name]
    raise BootstrapError(f"no stack has an output {name}")


def _api_id(endpoint: str) -> str:
    return re.sub(r"^https?://", "", endpoint).partition(".")[0]


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
