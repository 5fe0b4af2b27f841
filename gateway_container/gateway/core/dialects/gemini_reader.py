"""Google Gemini: answers of generateContent and streamGenerateContent?alt=sse."""

import msgspec

from gateway.core.dialects.conversation import (
    Begin,
    Event,
    Finish,
    Reason,
    TextDelta,
    ThinkingDelta,
    Tokens,
    ToolDelta,
    ToolStart,
    Used,
)
from gateway.core.dialects.document import NULL, of_provider
from gateway.core.dialects.event_reader import EventStreamReader
from gateway.core.stage import Garbled

REASONS: dict[str, Reason] = {"STOP": "stop", "MAX_TOKENS": "length"}
BROKEN = frozenset({
    "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE",
})  # fmt: skip


class FunctionCall(msgspec.Struct):
    name: str
    args: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None


class Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: FunctionCall | None = None
    inline_data: msgspec.Raw = NULL
    executable_code: msgspec.Raw = NULL
    code_execution_result: msgspec.Raw = NULL


class Content(msgspec.Struct):
    parts: list[Part] = []


class Candidate(msgspec.Struct, rename="camel"):
    content: Content = msgspec.field(default_factory=Content)
    finish_reason: str | None = None


class Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class WireUsage(msgspec.Struct, rename="camel"):
    prompt_token_count: int = 0
    tool_use_prompt_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    cached_content_token_count: int = 0


class Answer(msgspec.Struct, rename="camel"):
    candidates: list[Candidate] = []
    prompt_feedback: Feedback | None = None
    usage_metadata: WireUsage | None = None
    model_version: str = ""
    response_id: str = ""


_decoder = msgspec.json.Decoder(Answer)


class Reader(EventStreamReader):
    """Reads an answer; ``feed`` for a stream, ``whole`` for a body. Raises Garbled. ``id`` and ``model`` serve where
    Gemini does not name them."""

    def __init__(self, id: str, model: str) -> None:
        super().__init__()
        self._begin = Begin(id, model)
        self._begun = self._finished = False
        self._calls = 0

    def whole(self, body: bytes) -> list[Event]:
        events = self._answer(of_provider(body, _decoder))
        if not self._finished:
            raise Garbled("no finish reason")
        return events

    def _ended(self) -> bool:
        return self._finished

    def _event(self, text: bytes) -> list[Event]:
        return self._answer(of_provider(text, _decoder))

    def _answer(self, answer: Answer) -> list[Event]:
        events: list[Event] = []
        if not self._begun:
            self._begun = True
            self._begin = Begin(answer.response_id or self._begin.id, answer.model_version or self._begin.model)
            events.append(self._begin)
        for candidate in answer.candidates[:1]:
            for part in candidate.content.parts:
                events += self._part(part)
        reason = answer.candidates[0].finish_reason if answer.candidates else None
        if answer.prompt_feedback is not None and answer.prompt_feedback.block_reason:
            reason = answer.prompt_feedback.block_reason
        if reason is not None and not self._finished:
            events.append(self._finish(reason))
        if answer.usage_metadata is not None:
            events.append(Used(_tokens(answer.usage_metadata)))
        return events

    def _part(self, part: Part) -> list[Event]:
        if part.function_call is not None:
            return self._call(part.function_call, part.thought_signature)
        if part.text is None:
            raise Garbled("a part of an unknown kind")
        if part.thought:
            return [ThinkingDelta(part.text, part.thought_signature)]
        return [TextDelta(part.text)] if part.text else []

    def _call(self, call: FunctionCall, signature: str | None) -> list[Event]:
        number = self._calls
        self._calls += 1
        start = ToolStart(number, call.id or f"call_{self._begin.id}_{number}", call.name, signature)
        return [start, ToolDelta(number, bytes(call.args).decode())]

    def _finish(self, reason: str) -> Finish:
        self._finished = True
        if reason in BROKEN:
            raise Garbled(reason)
        if reason == "STOP" and self._calls:
            return Finish("tool_calls")
        return Finish(REASONS.get(reason, "content_filter"))


def _tokens(usage: WireUsage) -> Tokens:
    given = usage.prompt_token_count + usage.tool_use_prompt_token_count
    made = usage.candidates_token_count + usage.thoughts_token_count
    return Tokens(given, made, usage.cached_content_token_count, 0, usage.thoughts_token_count)
