"""Body capture: what was asked and answered goes to object storage, for projects that are set so; for others never.

Records are bounded and spooled like metering rows, but are no bookkeeping: what does not fit is dropped and counted.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from gateway.core.exchange import Exchange
from gateway.core.shapes import Captured
from gateway.core.snapshot import Endpoint
from gateway.core.stage import AnswerHead, Stage, StageMaker
from gateway.metering import Meter

CAPTURED_BYTES: Final = 64 << 10  # of each body
BATCH_RECORDS: Final = 200
WAITING_BATCHES: Final = 16  # per project: 64 MiB on disk
FLUSH_S: Final = 10.0
Upload = Callable[[str, str, int, bytes], Awaitable[None]]  # project, batch, records, gzipped JSON lines


class CaptureStage(Stage):
    """Sees what the client sends and gets."""

    def __init__(self, exchange: Exchange, captures: "Captures") -> None:
        super().__init__(exchange)
        self._captures = captures
        self._asked = exchange.body[:CAPTURED_BYTES]
        self._asked_bytes = len(exchange.body)
        self._answer = bytearray()
        self._answer_bytes = 0
        self._status = 0

    def head(self, head: AnswerHead) -> None:
        self._status = head.status
        self.down.head(head)

    def data(self, data: bytes) -> None:
        self._answer_bytes += len(data)
        self._answer += data[: CAPTURED_BYTES - len(self._answer)]
        self.down.data(data)

    def over(self, outcome: str) -> None:
        exchange = self.exchange
        assert exchange.key is not None and exchange.endpoint is not None
        self._captures.add(
            Captured(
                exchange.event_id, exchange.ts_ms, exchange.key.project_id, exchange.key.id, exchange.endpoint.name,
                exchange.path, self._status, outcome, exchange.request_id,
                self._asked.decode(errors="replace"), self._asked_bytes,
                self._answer.decode(errors="replace"), self._answer_bytes,
            )
        )  # fmt: skip


class Captures:
    """The spools, one per project; each uploads on its own."""

    def __init__(self, directory: Path, boot: str, upload: Upload) -> None:
        self.directory = directory
        self._surplus = 0
        self._boot = boot
        self._upload = upload
        self._spools: dict[str, Meter[Captured]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def dropped(self) -> int:
        """Records that were too many, or that the control plane refused."""
        return self._surplus + sum(spool.refused for spool in self._spools.values())

    def start(self) -> None:
        """Go on with what another process has left behind."""
        for left in self.directory.glob("*/*.rows"):
            self._spool(left.parent.name)

    def kind(self, endpoint: Endpoint) -> StageMaker | None:
        """A kind of stages (``Policy.stage_kinds``)."""
        captured = endpoint.captured
        return (lambda exchange: self._stage(exchange, captured)) if captured else None

    def _stage(self, exchange: Exchange, captured: frozenset[str]) -> Stage:
        assert exchange.key is not None
        return CaptureStage(exchange, self) if exchange.key.project_id in captured else Stage(exchange)

    def add(self, record: Captured) -> None:
        spool = self._spool(record.project_id)
        if len(spool.waiting) >= WAITING_BATCHES:
            self._surplus += 1
            return
        spool.add(record)
        spool.write()  # at once: the records of one turn might not fit a segment

    def _spool(self, project_id: str) -> "Meter[Captured]":
        spool = self._spools.get(project_id)
        if spool is None:
            directory = self.directory / project_id
            directory.mkdir(parents=True, exist_ok=True)
            spool = self._spools[project_id] = Meter(
                directory, self._boot, lambda *batch: self._upload(project_id, *batch), BATCH_RECORDS, FLUSH_S,
                keeps_refused=False,
            )  # fmt: skip
            self._tasks.append(asyncio.create_task(spool.run(), name=f"captures of {project_id}"))
        return spool

    async def close(self) -> None:
        """Upload what is there; what cannot be uploaded stays on disk for the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for spool in self._spools.values():
            await spool.drain()
