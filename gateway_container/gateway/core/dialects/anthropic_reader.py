"""Anthropic messages: answers of providers, whole and streamed."""

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
)  # fmt: skip
from gateway.core.dialects.document import of_provider
from gateway.core.dialects.event_reader import EventStreamReader
from gateway.core.problems import ANTHROPIC_TYPES
from gateway.core.stage import Garbled

REASONS: dict[str, Reason] = {
    "end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "max_tokens": "length",
    "model_context_window_exceeded": "length", "tool_use": "tool_calls", "refusal": "refusal",
}  # fmt: skip
STATUS = {kind: status for status, kind in ANTHROPIC_TYPES.items()} | {"overloaded_error": 529, "timeout_error": 504}


class OutputDetails(msgspec.Struct):
    thinking_tokens: int = 0


class WireUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None


class Block(msgspec.Struct):
    type: str
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class Message(msgspec.Struct):
    id: str
    model: str
    content: list[Block] = []
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: WireUsage | None = None


class Failure(msgspec.Struct):
    type: str = ""
    message: str = ""


class Told(msgspec.Struct):
    """An event of a stream."""

    type: str
    index: int = 0
    message: Message | None = None
    content_block: Block | None = None
    delta: Delta | None = None
    usage: WireUsage | None = None
    error: Failure | None = None


_told = msgspec.json.Decoder(Told)
_message = msgspec.json.Decoder(Message)


class Reader(EventStreamReader):
    """Reads an answer; ``feed`` for a stream, ``whole`` for a body. Raises Garbled."""

    def __init__(self) -> None:
        super().__init__()
        self._over = False
        self._calls: dict[int, int] = {}  # a block's index -> the call's number
        self._usage = WireUsage()

    def whole(self, body: bytes) -> list[Event]:
        message = of_provider(body, _message)
        events: list[Event] = [Begin(message.id, message.model)]
        for index, block in enumerate(message.content):
            events += self._start(index, block)
            if block.type == "tool_use":
                events.append(ToolDelta(self._calls[index], bytes(block.input).decode()))
        if message.stop_reason is None:
            raise Garbled("no stop reason")
        return [*events, _finish(message.stop_reason, message.stop_sequence), self._used(message.usage)]

    def _ended(self) -> bool:
        return self._over

    def _event(self, text: bytes) -> list[Event]:
        told = of_provider(text, _told)
        if told.type == "message_start" and told.message is not None:
            return [Begin(told.message.id, told.message.model), self._used(told.message.usage)]
        if told.type == "content_block_start" and told.content_block is not None:
            return self._start(told.index, told.content_block)
        if told.type == "content_block_delta" and told.delta is not None:
            return self._delta(told.index, told.delta)
        if told.type == "message_delta" and told.delta is not None:
            finish = [_finish(told.delta.stop_reason, told.delta.stop_sequence)] if told.delta.stop_reason else []
            return [*finish, self._used(told.usage)]
        self._over = self._over or told.type in ("message_stop", "error")
        if told.type == "error":
            failure = told.error or Failure()
            return [Failed(STATUS.get(failure.type, 500), failure.message)]
        return []

    def _start(self, index: int, block: Block) -> list[Event]:
        if block.type == "tool_use":
            number = self._calls[index] = len(self._calls)
            return [ToolStart(number, block.id, block.name)]
        if block.type == "redacted_thinking":
            return [ThinkingDelta(redacted=block.data)]
        if block.type == "thinking":
            return [ThinkingDelta(block.thinking, block.signature or None)] if block.thinking or block.signature else []
        if block.type != "text":
            raise Garbled(f"a block of type {block.type}")
        return [TextDelta(block.text)] if block.text else []

    def _delta(self, index: int, delta: Delta) -> list[Event]:
        if delta.type == "text_delta":
            return [TextDelta(delta.text)]
        if delta.type == "thinking_delta":
            return [ThinkingDelta(delta.thinking)]
        if delta.type == "signature_delta":
            return [ThinkingDelta(signature=delta.signature)]
        if delta.type == "input_json_delta":
            if index not in self._calls:
                raise Garbled("arguments without a tool call")
            return [ToolDelta(self._calls[index], delta.partial_json)] if delta.partial_json else []
        return []

    def _used(self, usage: WireUsage | None) -> Used:
        """Usage comes in two events; the totals only ever grow."""
        new, known = usage or WireUsage(), self._usage
        for name in ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"):
            setattr(known, name, max(getattr(known, name) or 0, getattr(new, name) or 0))
        known.output_tokens_details = new.output_tokens_details or known.output_tokens_details
        return Used(_tokens(known))


def _tokens(usage: WireUsage) -> Tokens:
    read, write = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    details = usage.output_tokens_details
    return Tokens((usage.input_tokens or 0) + read + write, usage.output_tokens or 0, read, write,
                  details.thinking_tokens if details else 0)  # fmt: skip


def _finish(reason: str, stop_sequence: str | None) -> Finish:
    return Finish(REASONS.get(reason, "stop"), stop_sequence if reason == "stop_sequence" else None)
