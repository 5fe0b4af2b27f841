"""The second half of a request on the hot path: the answer, passed on as it comes, and every way it can end."""

from typing import TYPE_CHECKING, Final

from gateway.attempts import Attempts
from gateway.coalescer import Coalescer
from gateway.core import usage as usages
from gateway.core.problems import Rejected, is_error, outcome_of
from gateway.core.shapes import Row
from gateway.core.usage import NOTHING, BodyReader, StreamReader, Usage
from gateway.framing import LENGTH, Head

if TYPE_CHECKING:
    from gateway.front import Front
    from gateway.hot import Hot
    from gateway.upstream import Upstream

OK: Final = b"HTTP/1.1 200 OK\r\n"


class Flow(Attempts):
    """One inference request. Every path through it ends in ``finish``, once."""

    __slots__ = ("coalescer", "head", "http_1_0", "kept", "reader", "slow")

    def __init__(self, hot: "Hot", front: "Front", path: str) -> None:
        super().__init__(hot, front, path)
        self.reader: StreamReader | None = None
        self.coalescer: Coalescer | None = None  # for streams whose chunks may wait for each other
        self.head = b""  # of the answer, until it is written
        self.http_1_0 = False  # the client does not know chunked framing
        self.kept: BodyReader | None = None  # of an answer that is no event stream
        self.slow = False  # the client does not keep up

    # --- what the upstream connection tells ---------------------------------------------------------------------

    def answer(self, head: Head, empty: bool) -> bool:
        """The head of an answer. False: it is not wanted, the flow has gone elsewhere."""
        status = head.status
        if is_error(status) and self.attempt_failed(status, None):
            return False
        self.status = status
        self.passing = True
        self.heard_tick = self.hot.tick
        if head.event_stream:
            self.coalescer = self.hot.coalescer(self)
        if self.pipeline is not None:
            self.pipeline.begin(head)
            return not self.over
        if self.hot.server_timing:
            head.passed.append(self.timing_line())
        if head.event_stream:
            self.reader = StreamReader(self.hot.policy.adds_usage(self))
        else:
            self.kept = BodyReader(head.encoded)
        self.head = b"%b%bx-request-id: %b\r\n%b\r\n" % (
            self.hot.status_line(status),
            b"".join(head.passed),
            self.request_id.encode(),
            self._framing(head, empty),
        )
        return True

    def _framing(self, head: Head, empty: bool) -> bytes:
        if empty or (head.framing == LENGTH and self.reader is None):
            line = b"content-length: %d\r\n" % max(head.length, 0)
        elif self.http_1_0:
            self.keep_alive = False
            line = b""
        else:
            line = b"transfer-encoding: chunked\r\n"
        return line if self.keep_alive else line + b"connection: close\r\n"

    def timing_line(self) -> bytes:
        return b"server-timing: %b\r\n" % self.server_timing(self.hot.now_s)

    def flush_head(self) -> None:
        if self.head:
            head, self.head = self.head, b""
            self.front.transport.write(head)

    def whole(self, upstream: "Upstream", head: Head, data: bytes) -> None:
        """A 200 that came in one piece: what ``answer`` and ``complete`` do, in one go, but settled a little later."""
        hot, status = self.hot, head.status
        self.status = status
        line = b"" if self.keep_alive else b"connection: close\r\n"
        if hot.server_timing:
            line += self.timing_line()
        self.front.transport.write(
            b"%b%bx-request-id: %b\r\ncontent-length: %d\r\n%b\r\n%b"
            % (OK, b"".join(head.passed), self.request_id.encode(), len(data), line, data)
        )
        hot.policy.first_byte(self, status, hot.now_s)
        self.release(upstream)
        self.over = True
        hot.settle_soon(self, data)
        self.front.done(self)

    def settle(self, data: bytes) -> Row:
        """What ``finish`` does, for an answer that was passed on whole."""
        told = usages.of_body(data)
        usage, source = (told, "upstream") if told is not None else usages.untold(self, len(data))
        return self.hot.policy.finish(self, self.status, "ok", self.first_s, usage, source)

    def pass_plain(self, data: bytes) -> None:
        """A piece of a body of known length."""
        if not self.first_s:
            self.hot.policy.first_byte(self, self.status, self.hot.now_s)
        self.heard_tick = self.hot.tick
        if self.pipeline is not None:
            self.pipeline.feed([data])
            return
        if self.reader is not None:
            self._write_pieces([data], None, False)
            return
        if self.kept is not None:
            self.kept.feed(data)
        if self.head:
            data, self.head = self.head + data, b""
        self.front.transport.write(data)

    def pass_chunks(self, upstream: "Upstream", raw: bytes | None, pieces: list[bytes], done: bool) -> None:
        """Pieces of a body without length; ``raw`` is the same with its framing, where it is whole."""
        if not self.first_s and pieces:
            self.hot.policy.first_byte(self, self.status, self.hot.now_s)
        self.heard_tick = self.hot.tick
        if self.pipeline is not None:
            self.pipeline.feed(pieces)
            if done:
                self.pipeline.finish(upstream)
            return
        self._write_pieces(pieces, raw, done)
        if done:
            self.end(upstream)

    def complete(self, upstream: "Upstream", data: bytes) -> None:
        """The last piece of a body of known length."""
        if data:
            self.pass_plain(data)
        if self.pipeline is not None:
            self.pipeline.finish(upstream)
            return
        self.flush_head()
        if self.reader is not None:
            self._write_pieces([], None, True)
        self.end(upstream)

    def _write_pieces(self, pieces: list[bytes], raw: bytes | None, done: bool) -> None:
        out = self._read(pieces, done)
        if out is pieces and raw is not None and not self.http_1_0:
            data = raw
        elif self.http_1_0:
            data = b"".join(out)
        else:
            framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in out if piece]
            if done:
                framed.append(b"0\r\n\r\n")
            data = b"".join(framed)
        if self.head:
            data, self.head = self.head + data, b""
        if data:
            self.write(data, done)

    def write(self, data: bytes, last: bool) -> None:
        """A part of an answer whose length is not told."""
        if self.coalescer is not None:
            self.coalescer.write(data, last)
        else:
            self.front.transport.write(data)

    def _read(self, pieces: list[bytes], done: bool) -> list[bytes]:
        """Look at the pieces for usage. The same list comes back when nothing had to be changed."""
        reader, kept_whole = self.reader, self.kept
        if kept_whole is not None:
            for piece in pieces:
                kept_whole.feed(piece)
        if reader is None:
            return pieces
        out = pieces
        for number, piece in enumerate(pieces):
            kept = reader.feed(piece)
            if kept is not piece:
                if out is pieces:
                    out = pieces.copy()
                out[number] = kept
        if done and (rest := reader.rest()):
            out = [*out, rest]
        return out

    def upstream_lost(self, upstream: "Upstream", complete: bool) -> None:
        self.upstream = None
        if complete and self.passing:
            self.pass_chunks(upstream, None, [], True)
        elif self.passing:
            self._broken_off()
        elif upstream.reused and not self.redialled and self.replayable:
            self.redial()
        else:
            self.attempt_failed(None, Rejected("upstream_unreachable"))

    def upstream_garbled(self) -> None:
        self.upstream = None
        if self.passing:
            self._broken_off()
        else:
            self.attempt_failed(None, Rejected("upstream_invalid"))

    def _broken_off(self) -> None:
        self.hot.policy.broken_off(self)
        self.cut()

    # --- what the client's connection tells ---------------------------------------------------------------------

    def client_left(self) -> None:
        if self.over:
            return
        if self.coalescer is not None:
            self.coalescer.drop()
        self.stop_waiting()
        reached = self.passing or self.upstream is not None  # else no deployment has seen it, or its try has failed
        self.drop_upstream()
        usage, source = self._usage(False) if reached else (NOTHING, "none")
        self.finish(self.status or 499, "cancelled", usage, source)

    def pause(self) -> None:
        self.slow = True
        if self.upstream is not None:
            self.upstream.transport.pause_reading()

    def resume(self) -> None:
        self.slow = False
        if self.upstream is not None and (self.pipeline is None or not self.pipeline.holds):
            self.upstream.transport.resume_reading()

    # --- ends ---------------------------------------------------------------------------------------------------

    def sweep(self, now_s: float) -> None:
        """Once a second: end what takes too long."""
        settings = self.hot.settings
        silent_s = self.hot.tick - self.heard_tick
        allowed_s = settings.idle_timeout_s if self.first_s else settings.first_byte_timeout_s
        if silent_s <= allowed_s and now_s - (self.routed_s or self.arrived_s) <= settings.total_timeout_s:
            return
        if self.passing:
            self.cut("upstream_timeout")
        elif self.deployment is not None:
            self.attempt_failed(None, Rejected("upstream_timeout"))

    def refuse(self, problem: Rejected) -> None:
        self.drop_upstream()
        self.status = problem.status
        self.front.respond(problem, problem.body(self.path), self.keep_alive, self.request_id)
        self.finish(problem.status, problem.outcome, NOTHING, "none", problem.code)

    def release(self, upstream: "Upstream") -> None:
        """The deployment has said everything; its connection is for others now, who want it read."""
        self.upstream = None
        if self.slow or (self.pipeline is not None and self.pipeline.holds):
            upstream.transport.resume_reading()
        upstream.release()

    def end(self, upstream: "Upstream") -> None:
        self.release(upstream)
        usage, source = self._usage(True)
        self.finish(self.status, outcome_of(self.status), usage, source)

    def cut(self, code: str = "upstream_invalid") -> None:
        """The answer cannot be completed: the client sees a connection that ends too early, or still a problem."""
        if self.pipeline is not None and not self.pipeline.sent:
            self.pipeline.fail(Rejected(code))
            return
        self.drop_upstream()
        self.keep_alive = False
        self.flush_head()
        if self.coalescer is not None:
            self.coalescer.flush()
        usage, source = self._usage(False)
        self.front.cut()
        self.finish(self.status, "cut", usage, source, self.pipeline.error_code if self.pipeline is not None else "")

    def _usage(self, whole: bool) -> tuple[Usage, str]:
        if self.pipeline is not None:
            return self.pipeline.usage()
        if is_error(self.status):
            return NOTHING, "none"
        return usages.used(self.reader, self.kept, self, whole)

    def finish(self, status: int, outcome: str, usage: Usage, source: str, error_code: str = "") -> None:
        if self.over:
            return
        self.over = True
        if self.coalescer is not None:
            self.coalescer.flush()
        if self.pipeline is not None:
            self.pipeline.over(outcome)
        row = self.hot.policy.finish(self, status, outcome, self.hot.now_s, usage, source, error_code)
        self.hot.emit(row)
        self.front.done(self)
