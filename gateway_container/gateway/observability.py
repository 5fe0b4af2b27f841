"""What is told about requests besides metering: metrics always, access log and traces where they are asked for."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from gateway.access_log import AccessLog
from gateway.core.shapes import Row
from gateway.core.trace import Trace, Tracer
from gateway.otlp import Exporter
from gateway.settings import Settings
from gateway.telemetry import Telemetry

LAG_EVERY_S = 0.5


class Observability:
    """Made with the gateway, ``start``ed and ``close``d with it."""

    def __init__(self, settings: Settings) -> None:
        self.telemetry = Telemetry()
        self.loop_lag_s = 0.0  # how late the event loop was lately
        self.access_log = AccessLog() if settings.access_log else None
        self.exporter = _exporter(settings)
        self.tracer = Tracer(settings.trace_ratio, self.exporter.add) if self.exporter is not None else None

    def add(self, rows: list[Row], lines: bytes) -> None:
        """``lines`` are the rows as they are uploaded."""
        self.telemetry.add(rows)
        if self.access_log is not None:
            self.access_log.add(lines)

    def begin_trace(self, traceparent: bytes) -> Trace | None:
        """None where the request is not sampled; ``traceparent`` as in ``Tracer.begin``."""
        return self.tracer.begin(traceparent) if self.tracer is not None else None

    def work(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """What runs in the background."""
        return [self._watch_loop, *([self.exporter.run] if self.exporter is not None else [])]

    def counters(self) -> Iterator[tuple[str, int]]:
        """Names and values of what went out, and of what could not."""
        if self.access_log is not None:
            yield "access_log_dropped_rows_total", self.access_log.dropped
        if self.exporter is not None:
            yield "traces_sent_total", self.exporter.sent
            yield "traces_dropped_total", self.exporter.dropped

    async def close(self) -> None:
        if self.exporter is not None:
            await self.exporter.close()
        if self.access_log is not None:
            await asyncio.to_thread(self.access_log.close)

    async def _watch_loop(self) -> None:
        while True:
            begun_s = time.monotonic()
            await asyncio.sleep(LAG_EVERY_S)
            late_s = max(time.monotonic() - begun_s - LAG_EVERY_S, 0.0)
            self.loop_lag_s = max(late_s, self.loop_lag_s * 0.9)  # a peak is still seen by the next scrape


def _exporter(settings: Settings) -> Exporter | None:
    if not settings.otlp_url:
        return None
    headers = dict(header.split("=", 1) for header in settings.otlp_headers)
    return Exporter(settings.otlp_url, headers, settings.name)
