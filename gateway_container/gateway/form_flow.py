"""A request whose body is a form (audio, images). A large one is passed on while it comes, at the deployment's pace.

That begins once the form says which model it wants and more of it has come than is worth holding; a model that comes
after the file has the file held, as JSON bodies are, up to the greatest body that is accepted. What was passed on is
not kept: from then on no other deployment is tried.
"""

from typing import TYPE_CHECKING

from gateway.core.authorise import find_endpoint
from gateway.core.multipart import FormReader, whole
from gateway.core.problems import Rejected
from gateway.core.usage import Usage
from gateway.flow import Flow
from gateway.framing import Head

if TYPE_CHECKING:
    from gateway.front import Front
    from gateway.hot import Hot
    from gateway.upstream import Upstream


class FormFlow(Flow):
    """``length`` is what the client declared, -1 when its body is chunked."""

    __slots__ = ("_begun", "_ended", "_form_reader", "_held", "_held_bytes", "_length", "_part_tick",
                 "_waiting")  # fmt: skip

    def __init__(self, hot: "Hot", front: "Front", path: str, content_type: bytes, length: int) -> None:
        super().__init__(hot, front, path)
        self.content_type = content_type
        self._length = length
        self._form_reader: FormReader | None = None
        self._held: list[bytes] = []  # of the body, before anything is sent
        self._held_bytes = 0
        self._waiting: list[bytes] = []  # of the body, until there is a connection
        self._begun = False
        self._ended = False  # the whole body has come
        self._part_tick = hot.tick

    # --- the body, as it comes ----------------------------------------------------------------------------------

    def more(self, data: bytes) -> bool:
        """A part of the body, not its last. True: ``begin`` may be called. Raises Rejected."""
        if self._form_reader is None:
            self._form_reader = FormReader(self.content_type)
        self._form_reader.feed(data)
        self._part_tick = self.hot.tick
        if self._begun:
            self._pass_part(data)
            return False
        self._held.append(data)
        self._held_bytes += len(data)
        return self._held_bytes > self.hot.settings.stream_body_bytes and self._passes_untouched()

    def taken(self) -> bytes:
        """What is held, which is held no longer."""
        held = b"".join(self._held)
        self._held.clear()
        return held

    def _passes_untouched(self) -> bool:
        """Whether the model is known, and nobody wants to see the whole body. Raises Rejected."""
        assert self._form_reader is not None
        form, snapshot = self._form_reader.form(), self.hot.policy.snapshot
        if form is None or snapshot is None or self.key is None:
            return False
        endpoint = find_endpoint(snapshot, self.key, form.call.model)
        return not endpoint.stages and not any(
            self.path in d.translations for e in endpoint.chain for tier in e.tiers for d in tier
        )

    def begin(self) -> None:
        """Go as far as the model's name leads; the client waits until there is a connection."""
        assert self._form_reader is not None
        self._begun = True
        self.front.transport.pause_reading()
        self.body = self.taken()
        self.form = self._form_reader.form()
        self.keep_alive = self.front.keeps_alive()
        whole_bytes = self._length if self._length >= 0 else self.max_body_bytes
        self.more_bytes = max(whole_bytes - len(self.body), 0)
        if whole_bytes > self.max_body_bytes:
            self.problem = Rejected("body_too_large")
        self.run()

    def last(self, data: bytes) -> None:
        """The end of a body that is on its way."""
        assert self._form_reader is not None
        self._ended = True
        try:
            self._form_reader.feed(data)
            whole(self._form_reader)
        except Rejected as problem:
            self.break_off(problem)
            return
        if self.over:
            return
        self._pass_part(data)
        if self._length < 0:
            self._pass_end()

    def break_off(self, problem: Rejected) -> None:
        """The body cannot become whole."""
        self.keep_alive = False
        if self.over:
            return
        self.stop_waiting()
        if self.passing:
            self.cut()
        else:
            self.refuse(problem)

    # --- to the deployment --------------------------------------------------------------------------------------

    def send(self, upstream: "Upstream", line: bytes) -> None:
        if not self._begun:
            super().send(upstream, line)
            return
        self.upstream = upstream
        body = self.hot.policy.outgoing_body(self)
        framing = b"Transfer-Encoding: chunked"
        if self._length >= 0:
            framing = b"Content-Length: %d" % (self._length - len(self.body) + len(body))
        head = b"%bContent-Type: %b\r\nX-Request-Id: %b\r\n%b%b\r\n\r\n" % (
            line, self.content_type, self.request_id.encode(), self.forwarded, framing
        )  # fmt: skip
        upstream.begin(self, head + self._framed(body))
        waiting = b"".join(self._waiting)
        self._waiting.clear()
        self._pass_part(waiting)
        if self._ended and self._length < 0:
            self._pass_end()
        self.front.transport.resume_reading()

    def _pass_part(self, data: bytes) -> None:
        if self.over or not data:
            return
        if self.upstream is None:
            self._waiting.append(data)
            return
        self.replayable = False
        self.heard_tick = self.hot.tick
        self.upstream.transport.write(self._framed(data))

    def _pass_end(self) -> None:
        if self.upstream is not None:
            self.upstream.transport.write(b"0\r\n\r\n")

    def _framed(self, data: bytes) -> bytes:
        return data if self._length >= 0 else b"%x\r\n%b\r\n" % (len(data), data)

    def pause_body(self) -> None:
        if self._begun and not self.over:
            self.front.transport.pause_reading()

    def resume_body(self) -> None:
        if self._begun and not self.over:
            self.front.transport.resume_reading()

    # --- ends ---------------------------------------------------------------------------------------------------

    def answer(self, head: Head, empty: bool) -> bool:
        self._give_up_rest()
        return super().answer(head, empty)

    def whole(self, upstream: "Upstream", head: Head, data: bytes) -> None:
        self._give_up_rest()
        super().whole(upstream, head, data)
        self._read_on()

    def refuse(self, problem: Rejected) -> None:
        self._give_up_rest()
        super().refuse(problem)

    def _give_up_rest(self) -> None:
        """An answer that comes before the whole body was sent is the last on both connections."""
        if self._begun and not self._ended:
            self.keep_alive = False
            if self.upstream is not None:
                self.upstream.keep = False

    def finish(self, status: int, outcome: str, usage: Usage, source: str, error_code: str = "") -> None:
        super().finish(status, outcome, usage, source, error_code)
        self._read_on()

    def _read_on(self) -> None:
        if self._begun and not self.front.transport.is_closing():
            self.front.transport.resume_reading()

    def sweep(self, now_s: float) -> None:
        """The client has its own time for the body, the deployment for the answer."""
        if self._begun and not self._ended and self.upstream is not None and self.front.transport.is_reading():
            if self.hot.tick - self._part_tick > self.hot.settings.body_timeout_s:
                self.break_off(Rejected("request_timeout"))
            return
        super().sweep(now_s)
