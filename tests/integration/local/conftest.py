"""The emulator in a process of its own, with the contract app deployed into it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from foundry_local import deployer
from foundry_local.serve import free_port

from tests.snapshots import wait_for_snapshot

CONTRACT_APP = Path(__file__).parent / "contract_app"
LIMIT_S = 15.0


@dataclass
class EmulatorProcess:
    """``start``, ``stop`` (SIGTERM) and ``kill`` (SIGKILL) as often as you like; state and port stay."""

    state: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    def start(self, *options: str) -> "EmulatorProcess":
        environment = {**os.environ, "SEEN": str(self.state / "seen.jsonl"), "PYTHONPATH": str(CONTRACT_APP)}
        self.process = subprocess.Popen(
            [sys.executable, str(CONTRACT_APP / "emulator_process.py"), str(self.state), str(self.port), *options],
            stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self.process.stdout is not None and self.process.stdout.readline() == "ready\n"
        return self

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, signal_number: int) -> None:
        if self.process is not None:
            self.process.send_signal(signal_number)
            self.process.wait(timeout=LIMIT_S)
            self.process.stdout.close()  # type: ignore[union-attr]
            self.process = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, service: str) -> Any:
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
        return session.client(service, endpoint_url=self.url)

    def outputs(self, stack: str = "contract-services") -> dict[str, str]:
        found = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
        return {output["OutputKey"]: output["OutputValue"] for output in found}

    def seen(self, kind: str) -> list[Any]:
        """What the contract handlers saw so far."""
        file = self.state / "seen.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [line[kind] for line in lines if kind in line]

    def saved(self) -> None:
        """Return once a snapshot holds everything that was acknowledged before the call."""
        tick = {"Name": "tick", "Value": "1", "Type": "String", "Overwrite": True}
        wait_for_snapshot(self.state / "snapshot.json", lambda: self.client("ssm").put_parameter(**tick), eventually)


def eventually(check: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    deadline = time.monotonic() + limit_s
    while not (result := check()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
    return result


@pytest.fixture(name="eventually", scope="session")
def _eventually() -> Callable[..., Any]:
    return eventually


@pytest.fixture(scope="session")
def contract_assembly(pytestconfig: pytest.Config) -> Path:
    """The synthesized contract app, kept between sessions until its sources change."""
    folder = pytestconfig.cache.mkdir("contract_app")  # type: ignore[union-attr]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        deployer.synthesize(CONTRACT_APP, folder / "cdk.out", {})
    return folder / "cdk.out"


@pytest.fixture
def new_emulator(tmp_path: Path) -> Iterator[EmulatorProcess]:
    """An empty emulator of one's own."""
    emulator = EmulatorProcess(tmp_path / "state").start()
    yield emulator
    emulator.stop()


@pytest.fixture(scope="session")
def emulator(contract_assembly: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """One emulator for the session with the contract app deployed."""
    running = EmulatorProcess(tmp_path_factory.mktemp("emulator") / "state").start()
    deployer.deploy(contract_assembly, running.url)
    yield running
    running.stop()
