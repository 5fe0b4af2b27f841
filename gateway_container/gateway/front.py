"""One client connection: HTTP/1.1 requests in, in order, each handed to a job that answers it.

llhttp (httptools) parses, strictly; what it refuses, what is too large and what is too slow is answered and closed.
"""

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import httptools

from gateway.core.problems import Rejected
from gateway.flow import Flow
from gateway.header_names import names_of
from gateway.side_call import SideCall

if TYPE_CHECKING:
    from gateway.hot import Hot

log = logging.getLogger("gateway.front")
SMALL_BODY_BYTES: Final = 64 << 10  # of a refused request this much is read, so that the connection can be kept
MANY_PARTS: Final = 256
LINGER_S: Final = 2.0


class Job(Protocol):
    """One request: gets its body, runs when it is its turn, calls ``front.done`` at its end."""

    body: bytes
    keep_alive: bool
    problem: Rejected | None

    @property
    def max_body_bytes(self) -> int: ...

    def run(self) -> None: ...
    def client_left(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def sweep(self, now_s: float) -> None: ...


class Front(asyncio.Protocol):
    """Reads requests; at most one job runs, pipelined ones wait and reading stops meanwhile.

    Three of llhttp's callbacks are methods of a list or a dictionary: they cost no Python frame.
    """

    __slots__ = (
        "_body_bytes", "_deaf", "_expects", "_head_bytes", "_in_body", "_incoming", "_job", "_lingers", "_long_body",
        "_named", "_parser", "_parts", "_queue", "_since_s", "_urls", "hot", "on_body", "on_header", "on_url", "peer",
        "transport",
    )  # fmt: skip

    def __init__(self, hot: "Hot") -> None:
        self.hot = hot
        self.peer = ""
        self.transport: asyncio.Transport
        self._urls: list[bytes] = []
        self.on_url = self._urls.append
        self._named: dict[bytes, bytes] = {}
        self.on_header = self._named.__setitem__
        self._parts: list[bytes] = []
        self.on_body = self._parts.append
        self._long_body: bytearray | None = None  # of many parts
        self._parser: Any = httptools.HttpRequestParser(self)
        self._incoming: Job | None = None
        self._job: Job | None = None
        self._queue: deque[Job] | None = None
        self._deaf = False  # nothing that still arrives is read
        self._lingers = False
        self._in_body = False
        self._expects = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._since_s = hot.tell_time()  # when the present state began: idle, head, body or lingering

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
        self.hot.tell_time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(Rejected("invalid_request", "The gateway does not upgrade connections."))
        except httptools.HttpParserCallbackError:
            log.exception("request handling failed")
            self.transport.abort()
        except httptools.HttpParserError:
            self._fail(Rejected("invalid_request", "This is not a valid HTTP/1.1 request."))
        else:
            if self._in_body:
                self._part_of_body(len(data))
            elif self._urls or self._head_bytes:
                self._part_of_head(len(data))

    def on_headers_complete(self) -> None:
        self._in_body = True
        self._head_bytes = 0
        self._since_s = self.hot.now_s

    def on_message_complete(self) -> None:
        if self._deaf:
            return
        job = self._incoming or self._begin()
        parts = self._parts
        job.body = parts[0] if len(parts) == 1 else self._whole_body()
        job.keep_alive = self._parser.should_keep_alive() and not self.hot.draining
        self._incoming = None
        self._in_body = False
        self._named.clear()
        self._urls.clear()
        parts.clear()
        self._since_s = self.hot.now_s
        if self._job is None:
            self._job = job
            job.run()
        else:
            self._enqueue(job)

    def _whole_body(self) -> bytes:
        self._body_bytes = 0
        long, self._long_body = self._long_body, None
        rest = b"".join(self._parts)
        return rest if long is None else bytes(long + rest)

    def _part_of_head(self, size: int) -> None:
        """More of the head is to come: mind its size and the time."""
        if not self._head_bytes:
            self._since_s = self.hot.now_s
        self._head_bytes += size
        if self._head_bytes > self.hot.settings.max_header_bytes:
            self._fail(Rejected("header_too_large"))

    def _part_of_body(self, size: int) -> None:
        """More of the body is to come: check the key before anything is kept, and mind the size."""
        if self._incoming is None:
            self._incoming = self._begin()
            if self._expects and self._incoming.problem is None and self._job is None:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        job = self._incoming
        self._body_bytes += size
        if job.problem is not None:
            self._parts.clear()
            if self._body_bytes > SMALL_BODY_BYTES:
                self._last(job)
        elif self._body_bytes > job.max_body_bytes:
            job.problem = Rejected("body_too_large")
            self._last(job)
        elif len(self._parts) > MANY_PARTS:
            if self._long_body is None:
                self._long_body = bytearray()
            self._long_body += b"".join(self._parts)
            self._parts.clear()

    def _begin(self) -> Job:
        """The head is complete: find out what is asked, and by whom."""
        urls = self._urls
        url = urls[0] if len(urls) == 1 else b"".join(urls)
        method = self._parser.get_method()
        known = self.hot.paths.get(url)
        if known is not None and method == b"POST":
            return self._inference(known)
        path, _, query = url.partition(b"?")
        known = self.hot.paths.get(path)
        if known is not None and method == b"POST":
            return self._inference(known)
        self._expects = False
        return SideCall(self.hot, self, method, path, query, list(self._named.items()))

    def _inference(self, path: str) -> Flow:
        flow = Flow(self.hot, self, path)
        named = self._named
        names = names_of(named)
        self._expects = names.expect is not None
        if names.content_type is not None:
            flow.content_type = named[names.content_type]
        if names.request_id is not None:
            flow.name_by(named[names.request_id])
        if names.forwarded:
            flow.forwarded = names.passed_on(named)
        if names.staged:
            flow.headers = {lower: named[name] for lower, name in names.staged}
        if self.hot.tracer is not None:
            self.hot.trace(flow, named, names)
        try:
            self.hot.authorise(flow, self.peer, named, names)
        except Rejected as problem:
            flow.problem = problem
        return flow

    def _enqueue(self, job: Job) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(job)
        self.transport.pause_reading()

    def _last(self, job: Job) -> None:
        """Answer this one and read no further: where the next request would begin is not known."""
        self._deaf = True
        self._incoming = None
        self._parts.clear()
        self._long_body = None
        job.keep_alive = False
        if self._job is None:
            self._job = job
            job.run()
        else:
            self._enqueue(job)

    def _fail(self, problem: Rejected) -> None:
        if self._deaf:
            return
        job = self._incoming
        if job is None or job.problem is None:
            job = SideCall(self.hot, self, b"GET", b"/", b"", [])
            job.problem = problem
        self._last(job)

    @property
    def http_1_0(self) -> bool:
        """Whether the client does not know chunked framing."""
        return bool(self._parser.get_http_version() == "1.0")

    # --- what jobs call -----------------------------------------------------------------------------------------

    def respond(self, problem: Rejected, body: bytes, keep_alive: bool, request_id: str = "") -> None:
        """A whole problem answer."""
        retry = b"retry-after: %d\r\n" % problem.retry_after_s if problem.retry_after_s else b""
        named = b"x-request-id: %b\r\n" % request_id.encode() if request_id else b""
        close = b"" if keep_alive else b"connection: close\r\n"
        self.transport.write(
            b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%b%b%b\r\n%b"
            % (self.hot.status_line(problem.status), len(body), retry, named, close, body)
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
        self._since_s = self.hot.now_s
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
        elif self._in_body:
            if age_s > settings.body_timeout_s:
                self._fail(Rejected("request_timeout"))
        elif self._head_bytes:
            if age_s > settings.header_timeout_s:
                self._fail(Rejected("request_timeout"))
        elif age_s > settings.keep_alive_s or self.hot.draining:
            self.transport.close()
