"""The stage that holds a request and its answer to the endpoint's guardrails."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gateway.core import sse
from gateway.core.exchange import Exchange
from gateway.core.guard.endings import ending
from gateway.core.guard.guard import Guard, Scan, ScannerAway, Side
from gateway.core.guard.rules import Finding
from gateway.core.guard.scanned import ScannedStream
from gateway.core.guard.stream import StreamGuard, Unreadable
from gateway.core.guard.texts import ANSWER, REQUEST, Text, Tree, has_token_ids, hide_tokens, texts
from gateway.core.problems import Rejected
from gateway.core.stage import AnswerHead, Garbled, Stage
from gateway.core.wire import Direction, Guardrail

LONG_TEXT_CHARS = 64 << 10  # above it the patterns run beside the event loop
MAX_TEXT_CHARS = 4 << 20
MAX_ANSWER_BYTES = 16 << 20
JSON = b"application/json"
COMPRESSED = "The deployment sent its answer compressed, so it cannot be checked. Have it send answers as they are."
Report = Callable[[str, Finding, Direction], None]  # endpoint, what was found, where


class GuardStage(Stage):
    """Requests are checked whole, answers whole or as their stream passes."""

    def __init__(self, exchange: Exchange, guard: Guard, scan: Scan, report: Report) -> None:
        super().__init__(exchange)
        self.guard = guard
        self.scan = scan
        self._report = report
        self._head: AnswerHead | None = None  # of an answer that is checked as a whole
        self._parts: list[bytes] = []
        self._size = 0
        self._events: sse.EventReader | None = None
        self._stream: StreamGuard | None = None
        self._scanned: ScannedStream | None = None
        self._response: dict[str, Any] = {}
        self._over = False

    # --- the request --------------------------------------------------------------------------------------------

    async def request(self) -> bool:
        exchange, side = self.exchange, self.guard.input
        if side.idle or exchange.form is not None:
            return False
        try:
            document = msgspec.json.decode(exchange.body)
            if side.strict and has_token_ids(document, exchange.path):
                raise Rejected("invalid_request", "This model checks what it is sent: send text, not token ids.")
            await self._check(document, REQUEST.get(exchange.path, {}), side, "input")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Rejected("invalid_request", f"The body is not a valid request: {error}.") from None
        if side.strict:  # what goes on is what was read, whatever the body says twice
            exchange.body = msgspec.json.encode(document)
        return False

    async def _check(self, document: Any, paths: Tree, side: Side, direction: Direction) -> bool:
        """Hold every text of a document to the rules. True when one was changed. Raises Rejected."""
        found = [text for text in texts(document, paths) if text.value]
        size = sum(len(text.value) for text in found)
        if size > MAX_TEXT_CHARS:
            raise Rejected("body_too_large", f"At most {MAX_TEXT_CHARS:,} characters can be checked.")
        if size > LONG_TEXT_CHARS:
            findings = await asyncio.to_thread(_apply, found, side)
        else:
            findings = _apply(found, side)
        self.note(findings, direction)
        for scanner in side.scanners if found else ():
            for text, value in zip(found, await self.ask(scanner, direction, [t.value for t in found]), strict=True):
                text.put(value)
        return any(text.changed for text in found)

    async def ask(self, scanner: Guardrail, direction: Direction, values: Sequence[str]) -> Sequence[str]:
        """The texts as a scanner lets them pass. Raises Rejected."""
        try:
            verdict = await self.scan(scanner, direction, values)
        except ScannerAway:
            if scanner.fail_open or scanner.action == "observe":
                return values
            raise Rejected("guardrail_unavailable", retry_after_s=1) from None
        if not verdict.flagged:
            return values
        action = scanner.action
        if action == "redact" and (verdict.texts is None or len(verdict.texts) != len(values)):
            action = "block"  # it cannot say what to take out
        self.note([Finding(scanner.id, action)], direction)
        return verdict.texts if action == "redact" and verdict.texts is not None else values

    def note(self, findings: Sequence[Finding], direction: Direction) -> None:
        """Count findings. Raises Rejected when one of them blocks."""
        name = self.exchange.endpoint.name if self.exchange.endpoint is not None else ""
        for finding in findings:
            self._report(name, finding, direction)
        blocking = next((finding for finding in findings if finding.action == "block"), None)
        if blocking is not None:
            what = "request" if direction == "input" else "answer"
            raise Rejected("content_blocked", f"The {what} was blocked by the guardrail {blocking.rule_id}.")

    # --- the answer ---------------------------------------------------------------------------------------------

    def head(self, head: AnswerHead) -> None:
        side = self.guard.output
        if side.idle or head.status != 200:
            self.down.head(head)
        elif head.encoded and self.exchange.path in ANSWER:
            self.stop(Rejected("upstream_invalid", COMPRESSED))
        elif head.event_stream:
            self._events = sse.EventReader()
            self._stream = StreamGuard(self.exchange.path, side.acting, side.watching)
            self._scanned = self._scanning(side.scanners) if side.scanners else None
            self.down.head(head)
        elif head.content_type.startswith(JSON) or self.exchange.path in ANSWER:
            self._head = head
        else:
            self.down.head(head)

    def data(self, data: bytes) -> None:
        if self._over:
            return
        if self._events is not None:
            self._feed(data)
        elif self._head is not None:
            self._parts.append(data)
            self._size += len(data)
            if self._size > MAX_ANSWER_BYTES:
                self.stop(Rejected("upstream_invalid", "The answer is too long to be checked."))
        else:
            self.down.data(data)

    def end(self) -> None:
        if self._over:
            return
        if self._events is not None and self._stream is not None:
            self._end_stream(self._events, self._stream)
        elif self._head is not None:
            self.pipeline.hold()
            self.pipeline.spawn(self._whole(self._head))
        else:
            self.down.end()

    async def _whole(self, head: AnswerHead) -> None:
        body = b"".join(self._parts)
        plain = self.exchange.form is not None and not head.content_type.startswith(JSON)  # a transcript may be
        try:
            document = {"text": body.decode()} if plain else msgspec.json.decode(body)
            if await self._check(document, ANSWER.get(self.exchange.path, {}), self.guard.output, "output"):
                hide_tokens(document)
                body = document["text"].encode() if plain else msgspec.json.encode(document)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.stop(Rejected("upstream_invalid"))
        except Rejected as problem:
            self.stop(problem)
        else:
            self.down.head(head)
            self.down.data(body)
            self.down.end()
        self.pipeline.free()

    # --- a stream -----------------------------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        assert self._events is not None and self._stream is not None
        try:
            events = self._events.feed(data)
        except sse.EventTooLong:
            raise Garbled from None
        passed: list[bytes] = []
        for event in events:
            passed += self._event(self._stream, event)
            if self._over:
                return
        self._pass_on(passed)

    def _event(self, stream: StreamGuard, event: bytes) -> list[bytes]:
        """What goes on of an event; nothing when it ends the stream."""
        try:
            passed = stream.event(event)
        except (Unreadable, RecursionError):
            raise Garbled from None
        response = stream.last.get("response")
        if isinstance(response, dict):
            self._response = response
        return passed if self._allowed(stream) else []

    def _allowed(self, stream: StreamGuard) -> bool:
        found, stream.found = stream.found, []
        try:
            self.note(found, "output")
        except Rejected as problem:
            self.stop(problem)
        return not self._over

    def _end_stream(self, events: sse.EventReader, stream: StreamGuard) -> None:
        rest = events.rest()
        passed = [*(self._event(stream, rest) if rest else []), *stream.end()]
        if not self._over and self._allowed(stream):
            self._pass_on(passed)
            if self._scanned is not None:
                self._scanned.end()
            else:
                self.down.end()

    def _scanning(self, scanners: Sequence[Guardrail]) -> ScannedStream:
        async def ask(scanner: Guardrail, values: Sequence[str]) -> Sequence[str]:
            return await self.ask(scanner, "output", values)

        return ScannedStream(self.exchange.path, scanners, ask, self.stop, self.pipeline, self.down)

    def _pass_on(self, events: list[bytes]) -> None:
        if self._scanned is not None:
            self._scanned.feed(events)
        elif events:
            self.down.data(b"".join(events))

    # --- an early end -------------------------------------------------------------------------------------------

    def stop(self, problem: Rejected) -> None:
        """End the answer here: a stream in good order, anything else as a problem."""
        if self._over:
            return
        self._over = True
        if self._stream is None:
            self.down.fail(problem)
            return
        used, _ = self.pipeline.usage()
        self.pipeline.outcome, self.pipeline.error_code = problem.outcome, problem.code
        self.down.data(ending(self.exchange.path, self._stream.last, self._response, used.output_tokens))
        self.down.end()

    def over(self, outcome: str) -> None:
        self._over = True


def _apply(found: Sequence[Text], side: Side) -> list[Finding]:
    """Put what the rules let pass in the texts' places."""
    findings: list[Finding] = []
    for text in found:
        findings += side.watching.redact(text.value)[1]
        value, acted = side.acting.redact(text.value)
        findings += acted
        text.put(value)
    return findings
