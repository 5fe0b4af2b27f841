"""How long a chunk of a stream may wait to share a write with the next one: the busier the process, the longer."""

import time
from collections.abc import Callable
from typing import Final

IDLE_LOAD: Final = 0.5  # up to this share of one core nothing waits
FULL_LOAD: Final = 0.9  # from here on a chunk may wait as long as the endpoint allows
# Before the first token engines send events without text: a role, the start of a message, of an item, of its part.
PROMPT_EVENTS: Final = 6


class Load:
    """Watches how much of its core the event loop's thread uses."""

    def __init__(
        self, cpu_s: Callable[[], float] = time.thread_time, wall_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._cpu_s = cpu_s
        self._wall_s = wall_s
        self._last = (cpu_s(), wall_s())

    def pressure(self) -> float:
        """From 0 (nothing waits) to 1, by the load since the last call."""
        before, now = self._last, (self._cpu_s(), self._wall_s())
        self._last = now
        passed_s = now[1] - before[1]
        load = (now[0] - before[0]) / passed_s if passed_s > 0 else 0.0
        return min(max((load - IDLE_LOAD) / (FULL_LOAD - IDLE_LOAD), 0.0), 1.0)
