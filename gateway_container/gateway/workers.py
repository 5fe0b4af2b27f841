"""One process per core on one port (SO_REUSEPORT), and a parent that replaces those that die."""

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable

import uvloop

from gateway.server import Server
from gateway.settings import Settings

log = logging.getLogger("gateway.workers")
RESTART_S = 1.0  # a worker that dies at once is not restarted faster than this
CANNOT_START = 3  # exit status of a process whose port or spool directory cannot be used


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    count = settings.workers or len(os.sched_getaffinity(0))
    if count == 1:
        return work(settings)
    return Supervisor(count, lambda number: work(_numbered(settings, number))).run()


def work(settings: Settings) -> int:
    """One worker: an event loop of its own, tuned for long life. Returns the exit status."""
    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    async with contextlib.AsyncExitStack() as serving:
        try:
            server = await serving.enter_async_context(Server(settings))
        except OSError as error:  # the port or the spool directory
            log.error("the gateway cannot start: %s", error)
            return CANNOT_START
        log.info("%s listens on %s:%d", server.settings.name, settings.host, server.port)
        # What lives for ever is not to be looked at again; requests leave almost no cycles.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        await ending.wait()
        log.info("%s drains", server.settings.name)
    return 0


def _numbered(settings: Settings, number: int) -> Settings:
    return dataclasses.replace(settings, gateway_id=f"{settings.name}-{number}")


class Supervisor:
    """Forks workers before any event loop exists, restarts the dead, passes signals on. What keeps a worker from
    starting for the first time is not going to pass by itself: that ends all of them, with its status."""

    def __init__(self, count: int, work: Callable[[int], int]) -> None:
        self.count = count
        self.work = work
        self._pids: dict[int, int] = {}
        self._ending = False
        self._restarted: set[int] = set()
        self._status = 0

    def run(self) -> int:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self._end())
        for number in range(self.count):
            self._fork(number)
        while self._pids:
            pid, status = os.wait()
            self._ended(self._pids.pop(pid), os.waitstatus_to_exitcode(status))
        return self._status

    def _ended(self, number: int, status: int) -> None:
        if self._ending:
            return
        if status == CANNOT_START and number not in self._restarted:
            self._status = status
            self._end()
            return
        log.error("worker %d ended (status %d): starting it again", number, status)
        self._restarted.add(number)
        time.sleep(RESTART_S)
        if not self._ending:
            self._fork(number)

    def _fork(self, number: int) -> None:
        pid = os.fork()
        if pid:
            self._pids[pid] = number
            return
        status = 1
        try:
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, signal.SIG_DFL)
            status = self.work(number)
        finally:
            sys.stdout.flush()
            os._exit(status)

    def _end(self) -> None:
        self._ending = True
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
