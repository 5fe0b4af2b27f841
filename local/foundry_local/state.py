"""The state directory of a platform: which file holds what, the lock, the ports, the status that others read."""

import fcntl
import json
import os
import shlex
import shutil
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import PlatformError
from .serve import PortTaken, bind, free_port

DEFAULT_STATE = Path(".foundry") / "local"
DEFAULT_PORT = 4600
# Whoever asks for the owner holds the lock for an instant.
_LOCK_TRIES, _LOCK_PAUSE_S = 10, 0.05


class StateError(PlatformError):
    """The state directory cannot be used; the message says what to do."""


@dataclass
class Status:
    """What a platform says about itself. ``state``: starting | ready | stopping | failed."""

    state: str
    pid: int
    started_at_ms: int
    step: str = ""
    error: str | None = None
    ready_at_ms: int | None = None
    api_url: str | None = None
    gateway_url: str | None = None
    aws_url: str | None = None
    kube_url: str | None = None
    kubeconfig: str | None = None
    issuer: str | None = None
    cognito_url: str | None = None
    client_id: str | None = None
    credentials: str | None = None
    log: str | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ports:
    """``front`` is the one people use; the others are kept, because stored queue URLs and kubeconfigs hold them."""

    front: int
    emulator: int
    gateway: int
    kube: int


class StateDir:
    """Paths below one directory, which only its owner can read."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.emulator = self.root / "emulator"
        self.assembly = self.root / "cdk.out"
        self.clickhouse = self.root / "clickhouse"
        self.gateway = self.root / "gateway"
        self.kube = self.root / "cluster.json"
        self.kubeconfig = self.root / "kubeconfig.yaml"
        self.credentials = self.root / "credentials.json"
        self.status = self.root / "status.json"
        self.log = self.root / "platform.log"
        self._ports = self.root / "ports.json"
        self._lock = self.root / "lock"
        self._mark = self.root / "foundry-state"

    @property
    def context(self) -> dict[str, str]:
        """What the CDK app is told: where ClickHouse lies, and that nothing outlives this directory."""
        return {"clickhouse_dsn": f"chdb://{self.clickhouse}", "disposable": "true"}

    def create(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not any(self.root.iterdir()):
            self._mark.touch(mode=0o600)

    def forget(self) -> None:
        """Delete the directory, if there is one. ``StateError`` for one that held files before it became a state."""
        if not self.root.exists():
            return
        by_hand = f"look into it, then rm -r {shlex.quote(str(self.root))}"
        if not self._mark.exists():
            raise StateError(f"{self.root} lacks the mark of a state directory, so nothing was deleted: {by_hand}")
        try:
            shutil.rmtree(self.root)
        except OSError as error:
            raise StateError(f"not all of {self.root} could be deleted ({error}): {by_hand}") from error

    def lock(self) -> int:
        """Take the directory for this process until it ends; returns the descriptor that holds the lock."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        for left in reversed(range(_LOCK_TRIES)):
            if _try_lock(descriptor):
                break
            if not left:
                os.close(descriptor)
                raise StateError(f"a platform already runs on {self.root}: foundry status")
            time.sleep(_LOCK_PAUSE_S)
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        return descriptor

    def owner(self) -> int | None:
        """Process id of the platform that holds the lock; None when none does."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            return None if _try_lock(descriptor) else int(os.read(descriptor, 32) or b"0") or None
        finally:
            os.close(descriptor)

    def ports(self, front: int | None) -> Ports:
        """The ports of this state, chosen at the first start. ``front``: another for this time, 0 for any free one."""
        known = self.known_ports()
        wanted = known.get("front", DEFAULT_PORT) if front is None else front
        chosen = wanted or free_port()
        inner = {name: known.get(name) or _near(chosen + n, front) for n, name in enumerate(_INNER, start=1)}
        ports = Ports(front=chosen, **inner)
        write_private(self._ports, json.dumps(asdict(ports)))
        return ports

    def known_ports(self) -> dict[str, int]:
        """Ports of the last start by name; empty before the first."""
        known: dict[str, int] = json.loads(self._ports.read_text()) if self._ports.exists() else {}
        return known

    def write_status(self, status: Status) -> None:
        write_private(self.status, json.dumps(asdict(status), indent=2))

    def read_status(self) -> Status | None:
        try:
            data: dict[str, Any] = json.loads(self.status.read_text())
        except (FileNotFoundError, ValueError):
            return None
        known = {item.name for item in fields(Status)}
        return Status(**{name: value for name, value in data.items() if name in known})


_INNER = ("emulator", "gateway", "kube")


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _near(port: int, front: int | None) -> int:
    """``port`` when it is free, else any; any too when the front takes any."""
    if front == 0:
        return free_port()
    try:
        bind(port).close()
    except PortTaken:
        return free_port()
    return port


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner alone."""
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
