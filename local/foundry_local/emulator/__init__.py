"""AWS in this process: the emulator, its functions and its durable state behind one class."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundry_local.serve import HOST, Server, bind

from . import engine, environ
from .engine import ACCOUNT_ID, REGION, EngineError
from .functions import Executor, Function, Outcome
from .guard import Guard
from .snapshots import SnapshotError, Snapshotter, load

__all__ = ["ACCOUNT_ID", "REGION", "Emulator", "EngineError", "Executor", "Function", "Outcome", "SnapshotError"]

log = logging.getLogger(__name__)

# Progress of state machines and schedules is announced by no request: look this often.
WATCH_PERIOD_S = 1.0


class Emulator:
    """One per process. ``start`` restores the last snapshot and returns when requests are answered.

    Until :meth:`open`, streams and queues deliver nothing and nothing is saved. What is deployed in between is
    complete or, after a kill, as if it had never begun.
    """

    def __init__(self, state: Path, port: int) -> None:
        self.state, self.port = state, port
        self.url = f"http://{HOST}:{port}"
        self.saved_at_s = 0.0  # Unix time of the snapshot that was restored; 0 when there was none
        self._stopping, self._is_open = threading.Event(), False

    @property
    def environment(self) -> dict[str, str]:
        """What a client of the emulator needs in its environment."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
        }

    def start(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        listener = bind(self.port)
        os.environ.update(self.environment)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            os.environ.pop(name, None)
        environ.install()
        self._executor = Executor(on_done=self._changed)
        self._engine = engine.start(self.port, self.state, self._executor)
        snapshot = self.state / "snapshot.json"
        self._snapshots = Snapshotter(snapshot, self._engine.dump, self._engine.encode)
        if (saved := load(snapshot, self._engine.decode)) is not None:
            self.saved_at_s = snapshot.stat().st_mtime
            self._engine.restore(saved)
        self._server = Server(Guard(self._engine.asgi, self._changed), listener, "emulator")
        self._server.start()

    def open(self) -> None:
        """Begin to work: deliver events, keep snapshots."""
        self._is_open = True
        self._executor.deliver()
        self._snapshots.start()
        threading.Thread(target=self._watch, daemon=True, name="emulator-watch").start()

    def save(self) -> None:
        """Write a snapshot now."""
        self._snapshots.save()

    @contextmanager
    def function_environment(self) -> Iterator[None]:
        """Inside the block, this thread reads the variables of all functions in ``os.environ``."""
        with environ.scope(self._executor.shared()):
            yield

    def stop(self) -> None:
        """Stop answering, then save everything, if it was ever open."""
        self._stopping.set()
        self._server.stop()
        self._executor.close()
        if self._is_open:
            self._snapshots.stop()

    def _changed(self) -> None:
        self._snapshots.mark()

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_PERIOD_S):
            if self._engine.busy():
                self._changed()
