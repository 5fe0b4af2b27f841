"""Amazon Bedrock: answers of Converse and ConverseStream."""

import msgspec

from gateway.core.dialects.conversation import (
    Begin,
    Event,
    Failed,
    Finish,
    Reason,
    TextDelta,
    ThinkingDelta,
    Tokens,
    ToolDelta,
    ToolStart,
    Used,
)
from gateway.core.dialects.document import of_provider
from gateway.core.dialects.eventstream import MessageReader
from gateway.core.stage import Garbled

REASONS: dict[str, Reason] = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
    "tool_use": "tool_calls", "guardrail_intervened": "content_filter", "content_filtered": "content_filter",
}  # fmt: skip
STATUS = {
    "internalServerException": 500, "modelStreamErrorException": 424, "validationException": 400,
    "throttlingException": 429, "serviceUnavailableException": 503,
}  # fmt: skip


class ReasoningText(msgspec.Struct):
    text: str = ""
    signature: str | None = None


class ReasoningContent(msgspec.Struct, rename="camel"):
    """A block has ``reasoningText``; a delta has its fields at once."""

    reasoning_text: ReasoningText | None = None
    redacted_content: str | None = None
    text: str = ""
    signature: str | None = None


class ToolUse(msgspec.Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class Block(msgspec.Struct, rename="camel"):
    """A content block, the start of one, or a delta: exactly one of its fields is there."""

    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: ReasoningContent | None = None


class WireUsage(msgspec.Struct, rename="camel"):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0


class Message(msgspec.Struct):
    content: list[Block] = []


class Output(msgspec.Struct):
    message: Message = msgspec.field(default_factory=Message)


class Answer(msgspec.Struct, rename="camel"):
    output: Output
    stop_reason: str
    usage: WireUsage


class Told(msgspec.Struct, rename="camel"):
    """The payload of any event of the stream."""

    content_block_index: int = 0
    start: Block | None = None
    delta: Block | None = None
    stop_reason: str | None = None
    usage: WireUsage | None = None
    message: str = ""


_answer = msgspec.json.Decoder(Answer)
_told = msgspec.json.Decoder(Told)
_string = msgspec.json.Decoder(str)


class Reader:
    """Reads an answer; ``feed`` for a stream, ``whole`` for a body. Raises Garbled. Bedrock names neither the answer
    nor the model, so they are given."""

    def __init__(self, id: str, model: str) -> None:
        self._begin = Begin(id, model)
        self._messages = MessageReader()
        self._begun = self._stopped = self._failed = False
        self._calls: dict[int, int] = {}  # a block's index -> the call's number

    def feed(self, data: bytes) -> list[Event]:
        return [event for headers, payload in self._messages.feed(data) for event in self._message(headers, payload)]

    def end(self) -> list[Event]:
        if not self._messages.between or not (self._stopped or self._failed):
            raise Garbled("the stream ended too early")
        return []

    def whole(self, body: bytes) -> list[Event]:
        answer = of_provider(body, _answer)
        events: list[Event] = [self._begin]
        for index, block in enumerate(answer.output.message.content):
            events += self._block(index, block)
        return [*events, _finish(answer.stop_reason), Used(_tokens(answer.usage))]

    def _message(self, headers: dict[str, str], payload: bytes) -> list[Event]:
        told = of_provider(payload or b"{}", _told)
        if headers.get(":message-type") != "event":
            self._failed = True
            kind = headers.get(":exception-type", "internalServerException")
            return [Failed(STATUS.get(kind, 500), told.message or headers.get(":error-message", kind))]
        begin: list[Event] = [] if self._begun else [self._begin]
        self._begun = True
        return begin + self._event(headers.get(":event-type", ""), told)

    def _event(self, kind: str, told: Told) -> list[Event]:
        if kind == "contentBlockStart" and told.start is not None and told.start.tool_use is not None:
            return [self._start(told.content_block_index, told.start.tool_use)]
        if kind == "contentBlockDelta" and told.delta is not None:
            return self._delta(told.content_block_index, told.delta)
        if kind == "messageStop":
            self._stopped = True
            return [_finish(told.stop_reason or "end_turn")]
        return [Used(_tokens(told.usage))] if kind == "metadata" and told.usage is not None else []

    def _start(self, index: int, use: ToolUse) -> ToolStart:
        number = self._calls[index] = len(self._calls)
        return ToolStart(number, use.tool_use_id, use.name)

    def _delta(self, index: int, delta: Block) -> list[Event]:
        if delta.tool_use is None:
            return _said(delta)
        if index not in self._calls:
            raise Garbled("arguments without a tool call")
        arguments = of_provider(bytes(delta.tool_use.input), _string)
        return [ToolDelta(self._calls[index], arguments)] if arguments else []

    def _block(self, index: int, block: Block) -> list[Event]:
        if block.tool_use is None:
            return _said(block)
        start = self._start(index, block.tool_use)
        return [start, ToolDelta(start.number, bytes(block.tool_use.input).decode())]


def _said(block: Block) -> list[Event]:
    if block.text is not None:
        return [TextDelta(block.text)] if block.text else []
    thought = block.reasoning_content
    if thought is None:
        raise Garbled("a block of an unknown kind")
    if thought.redacted_content is not None:
        return [ThinkingDelta(redacted=thought.redacted_content)]
    if thought.reasoning_text is not None:
        return [ThinkingDelta(thought.reasoning_text.text, thought.reasoning_text.signature)]
    return [ThinkingDelta(thought.text, thought.signature)]


def _finish(reason: str) -> Finish:
    if reason in ("malformed_model_output", "malformed_tool_use"):
        raise Garbled(reason)
    return Finish(REASONS.get(reason, "stop"))


def _tokens(usage: WireUsage) -> Tokens:
    read, write = usage.cache_read_input_tokens, usage.cache_write_input_tokens
    return Tokens(usage.input_tokens + read + write, usage.output_tokens, read, write)
