"""Time for the batching loop: real, or virtual so that tests take no real time."""

import asyncio
import heapq
import itertools
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds, and waiting until a point of them."""

    def now(self) -> float: ...

    async def sleep_until(self, when: float) -> None: ...


class RealClock:
    """The event loop's own clock."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep_until(self, when: float) -> None:
        loop = asyncio.get_running_loop()
        if when <= loop.time():
            await asyncio.sleep(0)
            return
        done = loop.create_future()
        timer = loop.call_at(when, _set, done)
        try:
            await done
        finally:
            timer.cancel()


def _set(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)


class VirtualClock:
    """Stands still until `advance`: wakes sleepers in the order of their times and lets their work run."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    async def sleep_until(self, when: float) -> None:
        if when <= self._now:
            await asyncio.sleep(0)
            return
        done = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (when, next(self._order), done))
        await done

    async def settle(self, turns: int = 20) -> None:
        """Let everything run that can run without time passing."""
        for _ in range(turns):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Move time forward, waking each sleeper at its own time."""
        end = self._now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            when, _, done = heapq.heappop(self._sleepers)
            self._now = max(self._now, when)
            _set(done)
            await self.settle()
        self._now = end
