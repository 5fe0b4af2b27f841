"""Chunks of one client's stream that share a write while the process is busy. Only streams that may wait have one."""

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.core.coalesce import PROMPT_EVENTS

if TYPE_CHECKING:
    from gateway.hot import Hot

MAX_HELD_BYTES: Final = 64 << 10


class Coalescer:
    """``write`` in place of the transport's; nothing is held longer than ``wait_s``."""

    __slots__ = ("_events", "_held", "_held_bytes", "_hot", "_timer", "_transport", "_wait_s")

    def __init__(self, hot: "Hot", transport: asyncio.Transport, wait_s: float) -> None:
        self._hot = hot
        self._transport = transport
        self._wait_s = wait_s
        self._events = 0
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def write(self, data: bytes, last: bool) -> None:
        """Now, if the process has time, the stream has just begun or ends; else with what follows."""
        if self._held or self._may_wait(last):
            self._held.append(data)
            self._held_bytes += len(data)
            if last or self._held_bytes > MAX_HELD_BYTES:
                self.flush()
        else:
            self._transport.write(data)
        if self._events < PROMPT_EVENTS:
            self._events += data.count(b"data:")

    def _may_wait(self, last: bool) -> bool:
        pressure = self._hot.pressure
        if last or pressure <= 0.0 or self._events < PROMPT_EVENTS:
            return False
        self._timer = self._hot.loop.call_later(self._wait_s * pressure, self.flush)
        return True

    def flush(self) -> None:
        held = self.drop()
        if held:
            self._transport.write(held)

    def drop(self) -> bytes:
        """Nobody wants it any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        return held
