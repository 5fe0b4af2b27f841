"""Point-in-time snapshots of the emulator's memory, in the manner of Redis' background save.

A fork sees memory exactly as it was at one instant, so one file holds every service consistently, no service is
paused while it is written, and the interpreter lock is not held. The file is replaced by rename: ``kill -9`` leaves
the previous snapshot or the new one, never a torn one.
"""

import gc
import json
import logging
import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foundry_local.errors import PlatformError

log = logging.getLogger(__name__)

Dump = Callable[[], dict[str, Any]]
# An acknowledged write is durable after PERIOD_S plus the time of one save, which must stay under two seconds.
PERIOD_S = 1.0
SAVE_LIMIT_S = 20.0
_CLOSE_UP_TO = 65536

warnings.filterwarnings("ignore", message=".*use of fork.*", category=DeprecationWarning)


class SnapshotError(PlatformError):
    """The snapshot could not be written or read; the message says what to do."""


class Snapshotter:
    """Saves ``dump()`` to ``path`` every ``period_s`` while something changed, and at :meth:`stop`."""

    def __init__(self, path: Path, dump: Dump, encode: Callable[[Any], Any], period_s: float = PERIOD_S) -> None:
        self.path, self.period_s = path, period_s
        self._dump, self._encode = dump, encode
        self._dirty, self._stopping = threading.Event(), threading.Event()
        self._saving = threading.Lock()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="snapshots")

    def start(self) -> None:
        self._thread.start()

    def mark(self) -> None:
        """Say that state may have changed."""
        self._dirty.set()

    def stop(self) -> None:
        """Save a last time and end."""
        self._stopping.set()
        self._dirty.set()
        if self._thread.is_alive():
            self._thread.join()
        self.save()

    def save(self) -> None:
        """Write one snapshot now; raises :class:`SnapshotError` when it could not be written."""
        with self._saving:
            self._dirty.clear()
            _in_child(self._write)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._dirty.wait()
            started = time.monotonic()
            try:
                self.save()
            except SnapshotError as error:
                log.error("%s", error)
                self._dirty.set()
            self._stopping.wait(max(0.05, self.period_s - (time.monotonic() - started)))

    def _write(self) -> None:
        temporary = self.path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(self._dump(), file, default=self._encode)
        temporary.replace(self.path)


def load(path: Path, decode: Callable[[dict[str, Any]], Any]) -> dict[str, Any] | None:
    """The saved state, None when there is none yet."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        state: dict[str, Any] = json.loads(text, object_hook=decode)
    except ValueError as error:
        raise SnapshotError(f"{path} is damaged ({error}); move it away to start with empty state") from error
    return state


def _in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked child; raise when it fails or takes longer than ``SAVE_LIMIT_S``."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(work, writer)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], SAVE_LIMIT_S)
        report = os.read(reader, 4096) if ready else b"it took too long"
    finally:
        os.close(reader)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if report != b"ok":
        raise SnapshotError(f"snapshot not written: {report.decode(errors='replace') or 'the writer died'}")


def _child(work: Callable[[], None], writer: int) -> None:
    # Whatever happens, leave by os._exit: no exit handler, no buffered output of the parent may run twice.
    status = 1
    try:
        gc.disable()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Listening sockets and the lock file must not outlive a killed parent in this child.
        os.closerange(3, writer)
        os.closerange(writer + 1, _CLOSE_UP_TO)
        work()
        os.write(writer, b"ok")
        status = 0
    except BaseException as error:
        os.write(writer, repr(error).encode()[:4096])
    finally:
        os._exit(status)
