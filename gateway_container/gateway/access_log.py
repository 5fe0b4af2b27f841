"""The access log: one JSON line per request on standard output, the metering row's fields, no bodies, no keys."""

import queue
import sys
import threading
from typing import BinaryIO

QUEUED = 1024  # writes; one holds the rows of one turn of the event loop
LAST_S = 2.0


class AccessLog:
    """A thread writes, so that no request waits for who reads the log. What the queue cannot take is dropped."""

    def __init__(self, out: BinaryIO | None = None) -> None:
        self.dropped = 0
        self._out = out if out is not None else sys.stdout.buffer
        self._queue: queue.Queue[bytes | None] = queue.Queue(QUEUED)
        self._thread = threading.Thread(target=self._write, name="access log", daemon=True)
        self._thread.start()

    def add(self, lines: bytes) -> None:
        """JSON lines of rows."""
        try:
            self._queue.put_nowait(lines)
        except queue.Full:
            self.dropped += lines.count(b"\n")

    def close(self) -> None:
        """Write what is queued, for as long as that does not take long."""
        try:
            self._queue.put(None, timeout=LAST_S)
        except queue.Full:
            return
        self._thread.join(LAST_S)

    def _write(self) -> None:
        while (lines := self._queue.get()) is not None:
            try:
                self._out.write(lines)
                self._out.flush()
            except (OSError, ValueError):  # nobody reads it, or it is closed
                self.dropped += lines.count(b"\n")
