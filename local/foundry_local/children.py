"""Processes of the platform beside its own: each is watched, started again when it dies, and ends with us."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path

from .errors import PlatformError
from .serve import HOST

log = logging.getLogger(__name__)

READY_S = 20.0
STOP_S = 8.0
_POLL_S = 0.03
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.5, 10.0


class ChildError(PlatformError):
    """A part of the platform did not start; the message names its log."""


class Child:
    """``python -m module argument…`` with ``environment``; output goes to ``log_file``."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log_file: Path) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "foundry_local.child", *command]
        self._environment, self._log_file = dict(environment), log_file
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, is_ready: Callable[[], bool]) -> None:
        """Start, and wait until it is ready; :class:`ChildError` when it ends first or takes too long."""
        self.spawn()
        self.wait(is_ready)

    def spawn(self) -> None:
        with self._log_file.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 (our own interpreter, our own module)
                self._command, env=self._environment, stdin=subprocess.PIPE, stdout=output, stderr=output
            )

    def wait(self, is_ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_S
        while not is_ready():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ChildError(f"the {self.name} did not start: see {self._log_file}")
            time.sleep(_POLL_S)
        threading.Thread(target=self._watch, daemon=True, name=f"watch-{self.name}").start()

    def stop(self) -> None:
        self._stopping.set()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _watch(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while self._process is not None:
            status = self._process.wait()
            if self._stopping.is_set():
                return
            log.error("the %s ended with status %s; starting it again in %.1f s", self.name, status, pause_s)
            if self._stopping.wait(pause_s):
                return
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)
            self.spawn()


def answers(port: int, path: str) -> Callable[[], bool]:
    """Whether a GET on this machine succeeds."""

    def check() -> bool:
        connection = HTTPConnection(HOST, port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status < 300
        except OSError:
            return False
        finally:
            connection.close()

    return check
