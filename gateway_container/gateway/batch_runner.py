"""Which batches this process runs: what it hears of with its config, it claims."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from gateway.control import ControlPlaneAway, Refused, decode
from gateway.core.wire import BatchClaim, BatchClaimAnswer

if TYPE_CHECKING:
    import httpx

    from gateway.batch_run import BatchRun
    from gateway.runtime import Gateway

log = logging.getLogger("gateway.batches")
AT_A_TIME: Final = 4
CLOSE_S: Final = 10.0


class BatchRunner:
    """At most a few batches at a time. ``upstream`` and ``sleep`` are for tests."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self.upstream: httpx.AsyncBaseTransport | None = None
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self.runs: dict[asyncio.Task[None], BatchRun] = {}
        self._claiming: asyncio.Task[None] | None = None
        self._client: httpx.AsyncClient | None = None
        self._closing = False

    def wake(self) -> None:
        """Claim a batch where one waits and there is room for it."""
        settings, control = self._gateway.settings, self._gateway.control
        full = len(self.runs) >= AT_A_TIME or settings.batch_lines == 0
        leaving = self._closing or self._gateway.draining
        if control.batches_wait and not full and not leaving and self._claiming is None:
            self._claiming = asyncio.get_running_loop().create_task(self._claim())

    async def _claim(self) -> None:
        control = self._gateway.control
        try:
            message = {"gateway_id": control.gateway_id}
            claim = decode(await control.ask("POST", "/batches/claim", message), BatchClaimAnswer).claim
            if claim is not None and not self._closing:
                self._start(claim)
        except (ControlPlaneAway, Refused) as error:
            log.warning("no batch could be claimed: %s", error)
        finally:
            self._claiming = None

    def _start(self, claim: BatchClaim) -> None:
        from gateway.batch_run import BatchRun
        from gateway.inference import upstream_client

        if self._client is None:
            self._client = upstream_client(self._gateway.settings, self.upstream)
        run = BatchRun(self._gateway, self._client, claim, self.sleep)
        task = asyncio.get_running_loop().create_task(run.run(), name=f"gateway batch {claim.batch.id}")
        self.runs[task] = run
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        run = self.runs.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("batch %s: its run failed; it can be claimed again in a minute", run.id, exc_info=error)

    async def close(self) -> None:
        """Stop; what is done is stored, and another gateway may go on at once."""
        self._closing = True
        if self._claiming is not None:
            await asyncio.gather(self._claiming, return_exceptions=True)
        for run in self.runs.values():
            run.stop()
        if self.runs:
            _, late = await asyncio.wait(list(self.runs), timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
