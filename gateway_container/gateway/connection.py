"""One client connection as its requests see it: whose turn it is, how they answer, and how it ends."""

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import httptools

from gateway.core.problems import Rejected
from gateway.repeated_head import LESSONS, RepeatedHead

if TYPE_CHECKING:
    from gateway.core.snapshot import Key, Snapshot
    from gateway.front import Front
    from gateway.header_names import KnownRequest
    from gateway.hot import Hot


LINE_BYTES: Final = 3  # of a header besides name and value


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


class Streamed(Job, Protocol):
    """A job that may begin before its body is whole."""

    def more(self, data: bytes) -> bool: ...
    def taken(self) -> bytes: ...
    def begin(self) -> None: ...
    def last(self, data: bytes) -> None: ...
    def break_off(self, problem: Rejected) -> None: ...


class Connection(asyncio.Protocol):
    """At most one job runs, none while the client is behind with reading; pipelined ones wait and reading stops
    meanwhile. Reading itself is ``Front``'s."""

    __slots__ = (
        "_body_bytes",
        "_chunked",
        "_clogged",
        "_deaf",
        "_expects",
        "_form",
        "_framing_bytes",
        "_head_bytes",
        "_in_body",
        "_incoming",
        "_job",
        "_lesson",
        "_lessons",
        "_lingers",
        "_long_body",
        "_named",
        "_parser",
        "_parts",
        "_queue",
        "_repeated_bytes",
        "_same",
        "_segment_bytes",
        "_since_s",
        "_urls",
        "hot",
        "key",
        "on_body",
        "on_url",
        "peer",
        "snapshot",
        "token",
        "transport",
    )  # fmt: skip

    def __init__(self, hot: "Hot") -> None:
        self.hot = hot
        self.peer = ""
        self.token = b""  # of the last request, and the key that it is under this config
        self.key: Key | None = None
        self.snapshot: Snapshot | None = None
        self.transport: asyncio.Transport
        self._urls: list[bytes] = []
        self.on_url = self._urls.append
        self._named: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self.on_body = self._parts.append
        self._long_body: bytearray | None = None  # of many parts
        self._form: Streamed | None = None  # whose body is coming
        self._parser: Any = httptools.HttpRequestParser(self)
        self._same: RepeatedHead[KnownRequest] | None = None  # of the last segment, if it was exactly one request
        self._lesson: tuple[bytes, KnownRequest] | None = None  # the body of a request and what its head meant
        self._lessons = LESSONS
        self._incoming: Job | None = None
        self._job: Job | None = None
        self._queue: deque[Job] | None = None
        self._deaf = False  # nothing that still arrives is read
        self._clogged = False  # more answers wait to be written than the client has read
        self._lingers = False
        self._in_body = False
        self._chunked = False  # so is the body that is coming
        self._framing_bytes = 0  # since the last payload; -1: a body or a chunk began in this segment
        self._expects = False
        self._head_bytes = 0  # of the head that is coming; -1: none is, and there was one before
        self._repeated_bytes = 0  # of the head that is coming: the lines that later ones of the same name replaced
        self._segment_bytes = 0  # of what came last
        self._body_bytes = 0
        self._since_s = hot.tell_time()  # when the present state began: idle, head, body or lingering

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.peer = (transport.get_extra_info("peername") or ("",))[0]
        if not self.hot.admit(cast("Front", self)):
            self._deaf = True
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._deaf = True
        self.hot.forget(cast("Front", self))
        job, self._job, self._queue = self._job, None, None
        if job is not None:
            job.client_left()
        self._parser = None

    def pause_writing(self) -> None:
        self._clogged = True
        if self._job is not None:
            self._job.pause()

    def resume_writing(self) -> None:
        self._clogged = False
        if self._job is not None:
            self._job.resume()
        elif self._queue:
            self.hot.loop.call_soon(self._next)

    def _may_run(self) -> bool:
        """Whether a request that has come may be answered now."""
        return self._job is None and self._queue is None and not self._clogged

    def _enqueue(self, job: Job) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(job)
        self.transport.pause_reading()

    @property
    def _http_1_0(self) -> bool:
        """Whether the request that is being read is of a client that knows neither chunks nor interim answers. It is
        the last one: such a client would have to be told that the connection stays open."""
        return bool(self._parser.get_http_version() == "1.0")

    def _whole_body(self) -> bytes:
        self._body_bytes = 0
        long, self._long_body = self._long_body, None
        form, self._form = self._form, None
        rest = b"".join(self._parts) if form is None else form.taken() + b"".join(self._parts)
        return rest if long is None else bytes(long + rest)

    def _size_of_head(self) -> int:
        """Of what is known of it so far, at least."""
        lines = sum(len(name) + len(value) + LINE_BYTES for name, value in self._named.items())
        return 1 + sum(map(len, self._urls)) + lines + self._repeated_bytes

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

    def keeps_alive(self) -> bool:
        """Whether another request may follow the one that is coming."""
        return bool(self._parser.should_keep_alive()) and not self.hot.draining and not self._http_1_0

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
        if job is self._incoming:  # half of its body is still to come
            self._deaf = True
            self._incoming = self._form = None
            job.keep_alive = False
        if not job.keep_alive:
            self._close()
        elif self._queue:
            self.hot.loop.call_soon(self._next)
        elif self.hot.draining:
            self.transport.close()

    def _next(self) -> None:
        queue = self._queue
        if self._job is not None or self._clogged or not queue:
            return
        self._job = queue.popleft()
        if not queue:
            self._queue = None
            self.transport.resume_reading()
        self._job.run()

    def _last(self, job: Job) -> None:
        """Answer this one and read no further: where the next request would begin is not known."""
        self._deaf = True
        self._incoming = None
        self._parts.clear()
        self._long_body = self._form = None
        job.keep_alive = False
        if self._may_run():
            self._job = job
            job.run()
        else:
            self._enqueue(job)

    def _close(self) -> None:
        """Close; where the client goes on sending, read on for a moment, else the reset would destroy the answer."""
        sends = self._deaf or self._queue is not None or self._in_body or self._head_bytes > 0
        self._deaf, self._queue = True, None
        if not sends or self.transport.is_closing():
            self.transport.close()
            return
        self._lingers = True
        self.transport.resume_reading()
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # the client may be gone already
                self.transport.write_eof()
