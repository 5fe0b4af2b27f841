"""Metering batches: rows go to a mapped segment at once, whole segments to object storage when it answers."""

import asyncio
import logging
import os
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from isal import igzip

from gateway.control import MessageRefused
from gateway.journal import RowSegment, read_rows

log = logging.getLogger("gateway.metering")
encode_rows = msgspec.json.Encoder().encode_lines
MAX_BACKOFF_S = 30.0
MAX_REFUSED_BYTES = 256 << 20  # of what was put aside in one directory: beyond, the oldest goes
Record = TypeVar("Record", bound=msgspec.Struct)
Upload = Callable[[str, int, bytes], Awaitable[None]]


class Batch:
    """A sealed segment: rows that wait for their upload."""

    def __init__(self, batch_id: str, path: Path | None, content: bytes | None = None, rows: int = 0) -> None:
        self.batch_id = batch_id
        self.path = path
        self._content = content
        self._rows = rows  # 0: not known, it was left behind by another process

    def pack(self) -> tuple[int, bytes]:
        """The number of rows, and the rows compressed."""
        content = self.read()
        return self._rows or content.count(b"\n"), igzip.compress(content, 1, mtime=0) if content else b""

    def read(self) -> bytes:
        return self._content if self._content is not None else read_rows(self.path) if self.path is not None else b""

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def put_aside(self, directory: Path) -> Path:
        """Keep the rows, and no zeros after them, in a file that no process takes up again by itself. Raises OSError:
        a file stays where it is."""
        kept, content = directory / f"{self.batch_id}.refused", self.read()
        if self.path is None:
            kept.write_bytes(content)
            return kept
        os.truncate(self.path, len(content))
        return self.path.replace(kept)


class Meter(Generic[Record]):
    """Takes rows, makes batches, uploads them in order. Nothing is removed before its upload has succeeded. A batch
    that the control plane refuses for good is put aside, or without ``keeps_refused`` dropped; the next ones go on."""

    def __init__(
        self, directory: Path, boot: str, upload: Upload, batch_rows: int, flush_s: float, keeps_refused: bool = True
    ) -> None:
        self.directory = directory
        self.boot = boot
        self.batch_rows = batch_rows
        self.flush_s = flush_s
        self.observe: Callable[[list[Record], bytes], None] = lambda rows, lines: None
        self.rows = 0
        self.uploaded = 0
        self.refused = 0
        self.dropped = 0  # of those refused
        self.waiting: deque[Batch] = deque(Batch(p.stem, p) for p in sorted(directory.glob("*.rows")))
        self._upload = upload
        self._keeps_refused = keeps_refused
        self._number = 0
        self._fresh: list[Record] = []
        self._batch_id = ""
        self._full = asyncio.Event()
        self._uploading = asyncio.Lock()
        self._segment = self._open()

    def add(self, row: Record) -> None:
        """Take a row; those of one turn of the event loop are written together."""
        if not self._fresh:
            asyncio.get_running_loop().call_soon(self.write)
        self._fresh.append(row)

    def add_all(self, rows: list[Record]) -> None:
        """Take and write the rows of one turn."""
        self._fresh += rows
        self.write()

    def write(self) -> None:
        """Put the rows taken so far into the segment."""
        rows, self._fresh = self._fresh, []
        if not rows:
            return
        self.rows += len(rows)
        lines = self._append(rows)
        self.observe(rows, lines)  # last: whatever goes wrong there, the rows are safe

    def _append(self, rows: list[Record]) -> bytes:
        """The lines that were written: in one piece, or in halves where a segment is too small for all of them."""
        lines = encode_rows(rows)
        if not self._segment.append(lines, len(rows)):
            self._seal_segment()
            if not self._segment.append(lines, len(rows)):
                half = len(rows) // 2
                if not half:
                    raise OverflowError("a row does not fit a segment")
                return self._append(rows[:half]) + self._append(rows[half:])
        if self._segment.rows >= self.batch_rows:
            self._seal_segment()
        return lines

    def seal(self) -> None:
        """Close the segment under way and queue it; an empty one is kept."""
        self.write()
        self._seal_segment()

    def _seal_segment(self) -> None:
        segment = self._segment
        if not segment.rows:
            return
        content = None if segment.path is not None else segment.content()
        self.waiting.append(Batch(self._batch_id, segment.path, content, segment.rows))
        segment.close()
        self._segment = self._open()
        self._full.set()

    def _open(self) -> RowSegment:
        self._number += 1
        self._batch_id = f"{time.time_ns() // 1_000_000}-{self.boot}-{self._number}"
        try:
            return RowSegment(self.directory / f"{self._batch_id}.rows")
        except OSError as error:
            log.error("metering spool %s is not usable (%s): rows stay in memory", self.directory, error)
            return RowSegment(None)

    async def run(self) -> None:
        """Upload for ever: every ``flush_s``, or as soon as a batch is full."""
        failures = 0
        while True:
            try:
                await asyncio.wait_for(self._full.wait(), self.flush_s)
            except TimeoutError:
                self.seal()
            self._full.clear()
            while self.waiting:
                failures = 0 if await self.flush_one() else failures + 1
                if failures:
                    backoff_s = min(2.0**failures * 0.25, MAX_BACKOFF_S)
                    await asyncio.sleep(backoff_s * (0.5 + random.random() / 2))  # noqa: S311 - jitter

    async def flush_one(self) -> bool:
        """Upload the oldest batch. False when it has to be tried again."""
        async with self._uploading:
            return not self.waiting or await self._flush(self.waiting[0])

    async def _flush(self, batch: Batch) -> bool:
        rows = 0
        try:
            rows, packed = await asyncio.to_thread(batch.pack)
            if rows:
                await self._upload(batch.batch_id, rows, packed)
                self.uploaded += rows
        except MessageRefused as error:
            self.refused += rows
            log.error("metering batch %s is refused (%s). See docs/gateway.md.", batch.batch_id, error)
            self._put_aside(batch)
        except Exception as error:  # whatever went wrong, the rows must not be lost
            log.warning("metering batch %s waits: %s", batch.batch_id, error)
            return False
        else:
            batch.remove()
        self.waiting.popleft()
        return True

    def _put_aside(self, batch: Batch) -> None:
        if not self._keeps_refused:
            batch.remove()
            return
        try:
            log.error("metering batch %s is kept: %s", batch.batch_id, batch.put_aside(self.directory))
        except OSError as problem:
            ends = "stays, and is sent again after the next start" if batch.path is not None else "is lost"
            log.error("metering batch %s %s: it could not be put aside (%s)", batch.batch_id, ends, problem)
            return
        try:
            self._bound_refused()
        except OSError as problem:
            log.error("old refused metering batches could not be dropped (%s): remove some by hand", problem)

    def _bound_refused(self) -> None:
        """Let the oldest go that was put aside, lest it fills the disk that new rows need. Raises OSError."""
        kept = sorted(self.directory.glob("*.refused"))
        surplus = sum([path.stat().st_size for path in kept]) - MAX_REFUSED_BYTES
        for path in kept:
            if surplus <= 0:
                return
            surplus -= path.stat().st_size
            self.dropped += read_rows(path).count(b"\n")
            path.unlink()
            log.error("%s is dropped: more than %d bytes were put aside", path, MAX_REFUSED_BYTES)

    async def drain(self) -> None:
        """At the end: seal and upload what is there; what cannot be uploaded stays on disk for the next start."""
        self.seal()
        while self.waiting and await self.flush_one():
            pass
        if not self._segment.rows and self._segment.path is not None:
            self._segment.path.unlink(missing_ok=True)
        self._segment.close()
