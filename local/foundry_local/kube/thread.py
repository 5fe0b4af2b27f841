"""A simulated cluster for callers without an event loop."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from foundry_local.kube.cluster import SimulatedCluster

T = TypeVar("T")


class ClusterThread:
    """A cluster on its own event loop in its own thread, for callers without one (`with ClusterThread(cluster):`)."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulated cluster", daemon=True)

    def __enter__(self) -> SimulatedCluster:
        self._thread.start()
        try:
            self.call(self.cluster.start())
        except BaseException:
            self._end()
            raise
        return self.cluster

    def __exit__(self, *_: object) -> None:
        try:
            self.call(self.cluster.stop())
        finally:
            self._end()

    def call(self, work: Coroutine[Any, Any, T], timeout_s: float = 30.0) -> T:
        """Run a coroutine on the cluster's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
