"""One connection to a deployment: sends a request, takes the response apart as far as its framing, and no further."""

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from gateway.core.stage import Garbled
from gateway.framing import CHUNKED, LENGTH, UNTIL_CLOSE, BadFraming, Dechunker, Head, is_no_head
from gateway.pool import Pool
from gateway.repeated_head import LESSONS, RepeatedHead, RepeatedHeads

if TYPE_CHECKING:
    from gateway.attempts import Attempts
    from gateway.flow import Flow

NO_BODY: Final = frozenset({204, 304})
HEAD: Final = 0  # the other states are the framings
HEADS: Final[RepeatedHeads[Head]] = RepeatedHeads()  # of answers that came in one piece


class Upstream(asyncio.Protocol):
    """Belongs to at most one flow at a time; without one it waits in its pool."""

    __slots__ = (
        "_buffer", "_dechunker", "_left", "_lessons", "_same", "_state", "dead", "flow", "idle_since_s", "keep", "pool",
        "reused", "transport",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.flow: Flow | None = None
        self.dead = False
        self.reused = False
        self.keep = True
        self.idle_since_s = 0.0
        self.transport: asyncio.Transport
        self._state = HEAD
        self._buffer = b""
        self._left = 0
        self._dechunker: Dechunker | None = None
        self._same: RepeatedHead[Head] | None = None
        self._lessons = LESSONS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.dead = True
        flow, self.flow = self.flow, None
        if flow is not None:
            flow.upstream_lost(self, complete=self._state == UNTIL_CLOSE and error is None)
        elif self in self.pool.idle:
            self.pool.idle.remove(self)

    def pause_writing(self) -> None:
        if self.flow is not None:
            self.flow.pause_body()

    def resume_writing(self) -> None:
        if self.flow is not None:
            self.flow.resume_body()

    def begin(self, flow: "Attempts", request: bytes) -> None:
        self.flow = cast("Flow", flow)
        self._state = HEAD
        self.transport.write(request)

    def drop(self) -> None:
        """The flow is over or goes elsewhere: an engine that is still generating sees it at once."""
        self.flow = None
        self.transport.abort()

    def release(self) -> None:
        """The response is complete, or was never asked for."""
        flow, self.flow = self.flow, None
        if self.keep and not self.dead:
            self.reused = True
            self.idle_since_s = flow.hot.now_s if flow is not None else time.monotonic()
            self.pool.idle.append(self)
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        flow = self.flow
        if flow is None:  # it speaks out of turn
            self.transport.abort()
            return
        flow.hot.tell_time()
        if self._same is not None and self._again(flow, self._same, data):
            return
        try:
            if self._state == HEAD:
                self._head(flow, data)
            else:
                self._take(data)
        except Garbled:
            flow, self.flow = self.flow, None
            self.transport.abort()
            if flow is not None:
                flow.upstream_garbled()

    def _again(self, flow: "Flow", same: RepeatedHead[Head], data: bytes) -> bool:
        """Pass on an answer that differs from the one before in nothing but its body: no need to parse it."""
        if self._state != HEAD or self._buffer or flow.pipeline is not None:
            return False
        body = same.body_of(data)
        if not body:
            return False
        self._lessons = LESSONS
        self.keep = same.meaning.keep_alive
        flow.whole(self, same.meaning, body)
        return True

    def _take(self, data: bytes) -> None:
        state = self._state
        if state == CHUNKED:
            self._chunked(data)
        elif state == LENGTH:
            self._length(data)
        else:
            self._until_close(data)

    # --- states -------------------------------------------------------------------------------------------------

    def _head(self, flow: "Flow", data: bytes) -> None:
        segment = data
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        end = data.find(b"\r\n\r\n")
        while end >= 0:
            head = Head(data[:end])
            data = data[end + 4 :]
            readable = not (head.event_stream or head.encoded)
            if head.status == 200 and 0 < head.length == len(data) and readable and flow.pipeline is None:
                if self._lessons:
                    self._lessons -= 1
                    self._same = HEADS.learn(segment, data, head)
                self.keep = head.keep_alive
                flow.whole(self, head, data)
                return
            if head.status >= 200:
                self._begin_body(flow, head, data)
                return
            end = data.find(b"\r\n\r\n")  # that was an interim answer, such as 100 Continue
        if is_no_head(data):
            raise BadFraming("head")
        self._buffer = data

    def _begin_body(self, flow: "Flow", head: Head, rest: bytes) -> None:
        self.keep = head.keep_alive
        empty = head.status in NO_BODY or head.length == 0
        if not flow.answer(head, empty):
            return
        if empty:
            self.keep = self.keep and not rest
            flow.complete(self, b"")
            return
        self._state = head.framing
        self._left = head.length
        if head.framing == CHUNKED:
            self._dechunker = Dechunker()
        if rest:
            self._take(rest)
        else:
            flow.flush_head()

    def _length(self, data: bytes) -> None:
        flow = self.flow
        assert flow is not None
        if len(data) > self._left:
            data = data[: self._left]
            self.keep = False
        self._left -= len(data)
        if self._left:
            flow.pass_plain(data)
        else:
            flow.complete(self, data)

    def _chunked(self, data: bytes) -> None:
        flow, dechunker = self.flow, self._dechunker
        assert flow is not None and dechunker is not None
        pieces = dechunker.feed(data)
        if dechunker.done:
            self._dechunker = None
            self.keep = self.keep and not dechunker.surplus
        flow.pass_chunks(self, data if dechunker.raw else None, pieces, dechunker.done)

    def _until_close(self, data: bytes) -> None:
        assert self.flow is not None
        self.flow.pass_chunks(self, None, [data], False)
