"""What `foundry up`, `down` and `status` do: a platform is a process that holds the lock of its state directory."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .errors import PlatformError
from .state import DEFAULT_STATE, StateDir, Status

UP_S = 240.0  # the first start synthesizes the stacks, which takes a while on a small machine
DOWN_S = 25.0
_POLL_S = 0.05

Hear = Callable[[Status], None]


class ControlError(PlatformError):
    """The platform did not do what was asked; the message says why."""


def up(
    state: Path = DEFAULT_STATE, port: int | None = None, root: Path | None = None, hear: Hear = lambda _status: None
) -> Status:
    """Start a platform in the background, or find the one that runs; returns when it is ready.

    ``hear`` is called with every new step of the start.
    """
    directory = StateDir(state)
    directory.create()
    if directory.owner() is not None:
        return _until_ready(directory, None, hear)
    directory.status.unlink(missing_ok=True)
    command = [sys.executable, "-m", "foundry_local", "--state", str(directory.root)]
    command += ["--root", str((root or Path.cwd()).absolute())] + (["--port", str(port)] if port is not None else [])
    process = subprocess.Popen(  # noqa: S603 (our own interpreter, our own module)
        command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    return _until_ready(directory, process, hear)


def down(state: Path = DEFAULT_STATE) -> bool:
    """Stop the platform and wait until it has ended; False when none was running. Its state stays."""
    directory = StateDir(state)
    pid = directory.owner()
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    if not _ends(directory, DOWN_S):
        os.kill(pid, signal.SIGKILL)
        if not _ends(directory, DOWN_S):
            raise ControlError(f"process {pid} does not end: kill -9 {pid}")
    return True


def status(state: Path = DEFAULT_STATE) -> Status | None:
    """What the platform says about itself; None when none runs on ``state``."""
    directory = StateDir(state)
    return directory.read_status() if directory.owner() is not None else None


def _ends(directory: StateDir, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while directory.owner() is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _until_ready(directory: StateDir, process: "subprocess.Popen[bytes] | None", hear: Hear) -> Status:
    deadline, heard = time.monotonic() + UP_S, None
    while time.monotonic() < deadline:
        now = directory.read_status()
        if now is not None and now.step != heard:
            heard = now.step
            hear(now)
        if now is not None and now.state == "ready":
            return now
        if (process.poll() is not None) if process else directory.owner() is None:
            raise ControlError(_reason(directory, process))
        time.sleep(_POLL_S)
    raise ControlError(f"the platform is not ready after {UP_S:.0f} s: see {directory.log}")


def _reason(directory: StateDir, process: "subprocess.Popen[bytes] | None") -> str:
    now = directory.read_status()
    if now is not None and now.error:
        return now.error
    said = process.stderr.read().decode(errors="replace").strip() if process and process.stderr else ""
    return said.removeprefix("error: ") or f"the platform ended while it was starting: see {directory.log}"
