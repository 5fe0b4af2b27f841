"""One client connection: HTTP/1.1 requests in, in order, each handed to a job that answers it.

llhttp (httptools) parses, strictly; what it refuses, what is too large and what is too slow is answered and closed.
"""

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, cast

import httptools

from gateway.core.headers import TO_UPSTREAM
from gateway.core.problems import Rejected
from gateway.flow import Flow
from gateway.side_call import SideCall

if TYPE_CHECKING:
    from gateway.hot import Hot

log = logging.getLogger("gateway.front")
SMALL_BODY_BYTES = 64 << 10  # of a refused request this much is read, so that the connection can be kept
LINGER_S = 2.0


class Job(Protocol):
    """One request: gets its body, runs when it is its turn, calls ``front.done`` at its end."""

    keep_alive: bool
    problem: Rejected | None
    size: int

    def add(self, data: bytes) -> None: ...
    def run(self) -> None: ...
    def client_left(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def sweep(self, now_s: float) -> None: ...


class Front(asyncio.Protocol):
    """Reads requests; at most one job runs, pipelined ones wait and reading stops meanwhile."""

    __slots__ = ("_deaf", "_head_bytes", "_headers", "_incoming", "_job", "_lingers", "_parser", "_queue", "_since_s",
                 "_url", "hot", "peer", "transport")  # fmt: skip

    def __init__(self, hot: "Hot") -> None:
        self.hot = hot
        self.peer = ""
        self.transport: asyncio.Transport
        self._parser: Any = httptools.HttpRequestParser(self)
        self._incoming: Job | None = None
        self._job: Job | None = None
        self._queue: deque[Job] | None = None
        self._deaf = False  # nothing that still arrives is read
        self._lingers = False
        self._since_s = time.monotonic()  # when the present state began: idle, head, body or lingering
        self._head_bytes = 0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.peer = (transport.get_extra_info("peername") or ("",))[0]
        if not self.hot.admit(self):
            self._deaf = True
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._deaf = True
        self.hot.forget(self)
        job, self._job, self._queue = self._job, None, None
        if job is not None:
            job.client_left()
        self._parser = None

    def pause_writing(self) -> None:
        if self._job is not None:
            self._job.pause()

    def resume_writing(self) -> None:
        if self._job is not None:
            self._job.resume()

    # --- parsing ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._incoming is None:
            self._count_head(len(data))
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(Rejected("invalid_request", "The gateway does not upgrade connections."))
        except httptools.HttpParserCallbackError:
            log.exception("request handling failed")
            self.transport.abort()
        except httptools.HttpParserError:
            self._fail(Rejected("invalid_request", "This is not a valid HTTP/1.1 request."))

    def _count_head(self, size: int) -> None:
        if not self._head_bytes:
            self._since_s = time.monotonic()
        self._head_bytes += size

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._deaf:
            return
        path, _, query = self._url.partition(b"?")
        if path in self.hot.paths and self._parser.get_method() == b"POST":
            job: Job = self._inference(path)
        else:
            job = SideCall(self.hot, self, self._parser.get_method(), path, query, self._headers)
        self._incoming = job
        self._head_bytes = 0
        self._since_s = time.monotonic()

    def _inference(self, path: bytes) -> Flow:
        """Sort the headers and find the key, before a byte of the body is kept."""
        hot = self.hot
        named = {name.lower(): value for name, value in self._headers}
        flow = Flow(hot, self, path.decode("ascii"), named.get(b"x-request-id", b"").decode("latin-1"))
        flow.content_type = named.get(b"content-type", b"application/json")
        if not TO_UPSTREAM.isdisjoint(named):
            passed = (b"%b: %b\r\n" % (name, value) for name, value in named.items() if name in TO_UPSTREAM)
            flow.forwarded = b"".join(passed)
        try:
            hot.authorise(flow, self.peer, named)
        except Rejected as problem:
            flow.problem = problem
        if b"expect" in named and flow.problem is None and self._job is None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return flow

    def on_body(self, data: bytes) -> None:
        job = self._incoming
        if job is None or self._deaf:
            return
        if job.problem is None:
            job.add(data)
            if job.size > self.hot.settings.max_body_bytes:
                job.problem = Rejected("body_too_large")
                self._last(job)
        else:
            job.size += len(data)
            if job.size > SMALL_BODY_BYTES:
                self._last(job)

    def on_message_complete(self) -> None:
        job, self._incoming = self._incoming, None
        if job is None or self._deaf:
            return
        job.keep_alive = self._parser.should_keep_alive() and not self.hot.draining
        if isinstance(job, Flow):
            job.http_1_0 = self._parser.get_http_version() == "1.0"
        self._since_s = time.monotonic()
        self._head_bytes = 0
        self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        if self._job is None:
            self._job = job
            job.run()
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append(job)
        self.transport.pause_reading()

    def _last(self, job: Job) -> None:
        """Answer this one and read no further: where the next request would begin is not known."""
        self._deaf = True
        self._incoming = None
        job.keep_alive = False
        self._enqueue(job)

    def _fail(self, problem: Rejected) -> None:
        if self._deaf:
            return
        job = self._incoming
        if job is None or job.problem is None:
            job = SideCall(self.hot, self, b"GET", b"/", b"", [])
            job.problem = problem
        self._last(job)

    # --- what jobs call -----------------------------------------------------------------------------------------

    def respond(self, problem: Rejected, body: bytes, keep_alive: bool, request_id: str = "") -> None:
        """A whole problem answer."""
        retry = b"retry-after: %d\r\n" % problem.retry_after_s if problem.retry_after_s else b""
        named = b"x-request-id: %b\r\n" % request_id.encode() if request_id else b""
        close = b"" if keep_alive else b"connection: close\r\n"
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b%b%b\r\n%b"
            % (problem.status, self.hot.reason(problem.status), len(body), retry, named, close, body)
        )

    def cut(self) -> None:
        """End the connection so that the client notices that the answer is not whole."""
        self._deaf = True
        self.transport.close()

    def done(self, job: Job) -> None:
        """The job has answered: the next pipelined one, or wait, or close."""
        if job is not self._job:
            return
        self._job = None
        self._since_s = time.monotonic()
        if not job.keep_alive:
            self._close()
        elif self._queue:
            self.hot.loop.call_soon(self._next)
        elif self.hot.draining:
            self.transport.close()

    def _next(self) -> None:
        queue = self._queue
        if self._job is not None or not queue:
            return
        self._job = queue.popleft()
        if not queue:
            self._queue = None
            self.transport.resume_reading()
        self._job.run()

    def _close(self) -> None:
        """Close; after an answer to half a request, read on for a moment, else the reset would destroy the answer."""
        self._queue = None
        if not self._deaf or self.transport.is_closing():
            self.transport.close()
            return
        self._lingers = True
        self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # --- time ---------------------------------------------------------------------------------------------------

    def sweep(self, now_s: float) -> None:
        """Once a second: end what takes too long."""
        settings, age_s = self.hot.settings, now_s - self._since_s
        if self._job is not None:
            self._job.sweep(now_s)
        elif self._lingers or self.transport.is_closing():
            if age_s > LINGER_S:
                self.transport.abort()
        elif self._incoming is not None:
            if age_s > settings.body_timeout_s:
                self._fail(Rejected("request_timeout"))
        elif self._head_bytes:
            if age_s > settings.header_timeout_s:
                self._fail(Rejected("request_timeout"))
        elif age_s > settings.keep_alive_s or self.hot.draining:
            self.transport.close()
