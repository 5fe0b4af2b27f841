"""The input of a batch in object storage, read in pieces: it may be larger than a gateway has memory."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Final

from gateway.batch_lines import Checker, whole_lines
from gateway.control import ControlPlane
from gateway.core.wire import BatchClaim

READ_BYTES: Final = 8 << 20  # two of the longest lines
LEAST_READ_BYTES: Final = 64 << 10


class Input:
    """``url`` is presigned, and renewed with each report."""

    def __init__(self, control: ControlPlane, claim: BatchClaim) -> None:
        self.url = claim.input_url
        self.size_bytes = claim.input_bytes
        self._control = control
        self._endpoint = claim.batch.endpoint

    async def checked(self, going: Callable[[], bool]) -> Checker:
        """All of it, once. Raises ControlPlaneAway."""
        checker = Checker(self._endpoint)
        async for piece in self._control.get(self.url):
            await asyncio.to_thread(checker.feed, piece)
            if checker.hopeless or not going():
                break
        checker.end()
        return checker

    async def lines(self, start: int, count: int, total: int) -> tuple[list[tuple[bytes, int]], int]:
        """At most ``count`` of its ``total`` lines from the byte ``start`` on, each with how many bytes it and those
        before it take; and, where there are none, how many bytes are blank. Raises ControlPlaneAway."""
        likely = min(max(2 * count * self.size_bytes // total, LEAST_READ_BYTES), READ_BYTES)
        for size in (likely, READ_BYTES):
            piece = await self._read(start, size)
            is_end = start + len(piece) >= self.size_bytes
            lines = list(itertools.islice(whole_lines(piece, is_end), count))
            blank = len(piece) if is_end else piece.rfind(b"\n") + 1
            if lines or blank:
                break
        return lines, blank

    async def _read(self, start: int, size: int) -> bytes:
        last = min(start + size, self.size_bytes) - 1
        return b"".join([piece async for piece in self._control.get(self.url, start, last)])
