"""One inference request on the hot path: from the complete request to the complete answer, or to whatever ended it."""

import time
from typing import TYPE_CHECKING

from gateway.core import usage as usages
from gateway.core.headers import TO_CLIENT
from gateway.core.policy import Exchange
from gateway.core.problems import Rejected
from gateway.core.snapshot import Deployment
from gateway.core.usage import StreamReader, Usage
from gateway.framing import LENGTH, Head
from gateway.pool import Pool
from gateway.runtime import now_ms
from gateway.upstream import Upstream

if TYPE_CHECKING:
    from gateway.front import Front
    from gateway.hot import Hot

MAX_READ_BYTES = 32 << 20  # a longer JSON answer passes, but its usage is not read
NOTHING = Usage()


class Flow(Exchange):
    """The exchange with its two connections. Every path through it ends in ``_finish``, once."""

    __slots__ = ("content_type", "forwarded", "front", "head", "heard_tick", "hot", "http_1_0", "keep_alive",
                 "kept_bytes", "over", "parts", "passing", "problem", "reader", "redialled", "size", "status",
                 "upstream")  # fmt: skip

    def __init__(self, hot: "Hot", front: "Front", path: str, request_id: str) -> None:
        super().__init__(hot.policy.new_event_id(), path, time.monotonic(), now_ms(), request_id)
        self.hot = hot
        self.front = front
        self.content_type = b"application/json"
        self.forwarded = b""
        self.keep_alive = True
        self.http_1_0 = False
        self.problem: Rejected | None = None
        self.parts: list[bytes] = []  # of the request body, later of the answer
        self.size = 0
        self.upstream: Upstream | None = None
        self.redialled = False
        self.reader: StreamReader | None = None
        self.head = b""  # of the answer, until it is written
        self.status = 0
        self.passing = False  # bytes of an answer are on their way to the client
        self.kept_bytes = 0
        self.heard_tick = hot.tick
        self.over = False

    # --- request ------------------------------------------------------------------------------------------------

    def add(self, data: bytes) -> None:
        self.parts.append(data)
        self.size += len(data)

    def run(self) -> None:
        """The request is complete and it is its turn."""
        parts, self.parts = self.parts, []
        try:
            if self.problem is not None:
                raise self.problem
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            self.hot.policy.address(self, body, self.content_type)
            short = self.hot.policy.reserve(self, now_ms())
        except Rejected as problem:
            self.refuse(problem)
            return
        if short is None:
            self._route()
        else:
            self.hot.spawn(self._reserve())

    async def _reserve(self) -> None:
        try:
            await self.hot.gateway.reserve(self)
        except Rejected as problem:
            if not self.over:
                self.refuse(problem)
            return
        if self.over:  # the client left while we waited: what has just been held goes back
            self.hot.policy.release(self)
        else:
            self._route()

    def _route(self) -> None:
        deployment = self.hot.policy.choose(self, time.monotonic())
        if deployment is None:
            self.refuse(Rejected("no_deployment", retry_after_s=1))
        else:
            self._attempt(deployment)

    def _attempt(self, deployment: Deployment) -> None:
        self.redialled = False
        self.heard_tick = self.hot.tick
        pool = self.hot.pools.of(deployment)
        upstream = pool.take()
        if upstream is not None:
            self._send(upstream)
        else:
            self.hot.spawn(self._dial(pool))

    async def _dial(self, pool: Pool) -> None:
        try:
            upstream = await pool.dial()
        except OSError:
            if not self.over:
                self._attempt_failed(None, Rejected("upstream_unreachable"))
            return
        if self.over:
            upstream.release()
        else:
            self._send(upstream)

    def _send(self, upstream: Upstream) -> None:
        deployment = self.deployment
        assert deployment is not None
        self.upstream = upstream
        body = self.hot.policy.outgoing_body(self)
        upstream.begin(
            self,
            b"%bContent-Type: %b\r\nX-Request-Id: %b\r\n%bContent-Length: %d\r\n\r\n%b"
            % (
                self.hot.request_line(deployment, self.path),
                self.content_type,
                self.request_id.encode(),
                self.forwarded,
                len(body),
                body,
            ),
        )

    def _attempt_failed(self, status: int | None, problem: Rejected | None) -> bool:
        """Go elsewhere if that is allowed; else end with ``problem``. False: pass the answer on."""
        now_s = time.monotonic()
        policy = self.hot.policy
        if policy.attempt_failed(self, status, now_s, self.passing):
            following = policy.retry(self, now_s)
            if following is not None:
                upstream, self.upstream = self.upstream, None
                if upstream is not None:
                    upstream.drop()
                self._attempt(following)
                return True
        if problem is not None:
            self.refuse(problem)
        return problem is not None

    # --- what the upstream connection tells ---------------------------------------------------------------------

    def answer(self, upstream: Upstream, head: Head, empty: bool) -> bool:
        """The head of an answer. False: it is not wanted, the flow has gone elsewhere."""
        status = head.status
        if status >= 400 and self._attempt_failed(status, None):
            return False
        self.status = status
        self.passing = True
        self.heard_tick = self.hot.tick
        lines = [b"HTTP/1.1 %d %b\r\n" % (status, self.hot.reason(status))]
        for name, value in head.headers:
            if name in TO_CLIENT:
                lines.append(b"%b: %b\r\n" % (name, value))
                if name == b"content-type" and value.startswith(b"text/event-stream"):
                    self.reader = StreamReader(self.hot.policy.adds_usage(self))
        lines.append(b"x-request-id: %b\r\n" % self.request_id.encode())
        self._frame(lines, head, empty)
        self.head = b"".join(lines)
        return True

    def _frame(self, lines: list[bytes], head: Head, empty: bool) -> None:
        if empty or (head.framing == LENGTH and self.reader is None):
            lines.append(b"content-length: %d\r\n" % max(head.length, 0))
        elif self.http_1_0:
            self.keep_alive = False
        else:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")

    def flush_head(self) -> None:
        if self.head:
            head, self.head = self.head, b""
            self.front.transport.write(head)

    def pass_plain(self, data: bytes) -> None:
        """A piece of a body of known length."""
        if not self.first_s:
            self.hot.policy.first_byte(self, self.status, time.monotonic())
        self.heard_tick = self.hot.tick
        if self.reader is not None:
            self._write_pieces([data], None, False)
            return
        self._keep(data)
        self._write(data)

    def pass_chunks(self, upstream: Upstream, raw: bytes | None, pieces: list[bytes], done: bool) -> None:
        """Pieces of a body without length; ``raw`` is the same with its framing, where it is whole."""
        if not self.first_s and pieces:
            self.hot.policy.first_byte(self, self.status, time.monotonic())
        self.heard_tick = self.hot.tick
        self._write_pieces(pieces, raw, done)
        if done:
            self._end(upstream)

    def complete(self, upstream: Upstream, data: bytes) -> None:
        """The last piece of a body of known length."""
        if data or self.head:
            self.pass_plain(data)
        if self.reader is not None:
            self._write_pieces([], None, True)
        self._end(upstream)

    def _write_pieces(self, pieces: list[bytes], raw: bytes | None, done: bool) -> None:
        out, changed = pieces, False
        reader = self.reader
        if reader is None:
            for piece in pieces:
                self._keep(piece)
        else:
            out = [reader.feed(piece) for piece in pieces]
            changed = any(a is not b for a, b in zip(out, pieces, strict=True))
            if done and (rest := reader.rest()):
                out.append(rest)
                changed = True
        if self.http_1_0:
            self._write(b"".join(out))
        elif raw is not None and not changed:
            self._write(raw)
        else:
            framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in out if piece]
            if done:
                framed.append(b"0\r\n\r\n")
            self._write(b"".join(framed))

    def _write(self, data: bytes) -> None:
        if self.head:
            data, self.head = self.head + data, b""
        if data:
            self.front.transport.write(data)

    def _keep(self, data: bytes) -> None:
        self.kept_bytes += len(data)
        if self.kept_bytes <= MAX_READ_BYTES:
            self.parts.append(data)

    def _end(self, upstream: Upstream) -> None:
        self.upstream = None
        upstream.release()
        usage, source = self._usage(True)
        self._finish(self.status, "ok" if self.status < 400 else "failed", usage, source)

    def upstream_lost(self, upstream: Upstream, complete: bool) -> None:
        self.upstream = None
        if complete and self.passing:
            self.pass_chunks(upstream, None, [], True)
        elif self.passing:
            self._cut()
        elif upstream.reused and not self.redialled:
            self._redial()
        else:
            self._attempt_failed(None, Rejected("upstream_unreachable"))

    def _redial(self) -> None:
        """A kept connection was closed just as it was used: that says nothing about the deployment."""
        assert self.deployment is not None
        self.redialled = True
        self.hot.spawn(self._dial(self.hot.pools.of(self.deployment)))

    def upstream_garbled(self) -> None:
        self.upstream = None
        if self.passing:
            self._cut()
        else:
            self._attempt_failed(None, Rejected("upstream_invalid"))

    def upstream_full(self) -> None:
        """The deployment takes the request slowly; it is in memory already, so there is nobody to hold back."""

    def upstream_ready(self) -> None:
        pass

    # --- ends ---------------------------------------------------------------------------------------------------

    def refuse(self, problem: Rejected) -> None:
        """Answer with a problem. Only before anything else was sent."""
        self._drop_upstream()
        body = problem.body(self.path)
        self.status = problem.status
        self.front.respond(problem, body, self.keep_alive, self.request_id)
        outcome = "rejected" if problem.status < 500 else "failed"
        self._finish(problem.status, outcome, NOTHING, "none", problem.code)

    def _cut(self) -> None:
        """The answer cannot be completed: the client sees a connection that ends too early."""
        self._drop_upstream()
        self.keep_alive = False
        self.flush_head()
        usage, source = self._usage(False)
        self.front.cut()
        self._finish(self.status, "cut", usage, source)

    def client_left(self) -> None:
        if self.over:
            return
        self._drop_upstream()
        usage, source = self._usage(False)
        self.wasted_tokens += usage.output_tokens
        self._finish(self.status or 499, "cancelled", usage, source)

    def sweep(self, now_s: float) -> None:
        """Once a second: end what takes too long."""
        settings = self.hot.settings
        silent_s = self.hot.tick - self.heard_tick
        if now_s - self.arrived_s > settings.total_timeout_s:
            pass
        elif silent_s <= (settings.idle_timeout_s if self.first_s else settings.first_byte_timeout_s):
            return
        if self.passing:
            self._cut()
        elif self.deployment is not None:
            self._drop_upstream()
            self._attempt_failed(None, Rejected("upstream_timeout"))

    def pause(self) -> None:
        if self.upstream is not None:
            self.upstream.transport.pause_reading()

    def resume(self) -> None:
        if self.upstream is not None:
            self.upstream.transport.resume_reading()

    def _drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.drop()

    def _usage(self, whole: bool) -> tuple[Usage, str]:
        reader = self.reader
        if reader is not None:
            if whole and reader.usage is not None:
                return reader.usage, "upstream"
            return usages.counted(len(self.body), reader.events), "counted"
        if whole and self.parts and (found := usages.of_body(b"".join(self.parts))) is not None:
            return found, "upstream"
        if not whole and self.deployment is not None:
            return usages.counted(len(self.body), 0), "counted"
        return NOTHING, "none"

    def _finish(self, status: int, outcome: str, usage: Usage, source: str, error_code: str = "") -> None:
        if self.over:
            return
        self.over = True
        row = self.hot.policy.finish(self, status, outcome, time.monotonic(), usage, source, error_code)
        self.hot.gateway.emit(row)
        self.front.done(self)
