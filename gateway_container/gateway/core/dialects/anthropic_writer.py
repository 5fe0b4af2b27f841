"""Anthropic messages: answers for clients, whole and streamed."""

from typing import Any

import msgspec

from gateway.core import sse
from gateway.core.dialects.conversation import (
    Begin,
    Event,
    Failed,
    Finish,
    TextDelta,
    ThinkingDelta,
    Tokens,
    ToolDelta,
    ToolStart,
    Used,
)  # fmt: skip
from gateway.core.dialects.document import object_of, said
from gateway.core.problems import ANTHROPIC_TYPES
from gateway.core.stage import Garbled

WORDS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


class Writer:
    """Writes an answer for a client as server-sent events. Blocks follow each other, one is open at a time."""

    def __init__(self) -> None:
        self._index = -1
        self._open = ""
        self._call = -1
        self._finish: Finish | None = None
        self._tokens = Tokens()
        self._failed = False

    def write(self, given: Event) -> bytes:
        """Raises Garbled where the provider's order cannot be told in this dialect."""
        if isinstance(given, Begin):
            return _event("message_start", message=_message_of(given, [], None, self._tokens))
        if isinstance(given, Used):
            self._tokens = given.tokens
        elif isinstance(given, Finish):
            self._finish = given
        elif isinstance(given, Failed):
            self._failed = True
            return sse.written(error(given.status, given.message), "error")
        elif isinstance(given, ToolStart):
            return self._start_call(given)
        elif isinstance(given, ToolDelta):
            if given.number != self._call or self._open != "tool_use":
                raise Garbled("tool calls are interleaved")
            return self._delta(type="input_json_delta", partial_json=given.arguments)
        else:
            return self._said(given)
        return b""

    def _said(self, given: TextDelta | ThinkingDelta) -> bytes:
        if isinstance(given, TextDelta):
            return self._opened("text", text="") + self._delta(type="text_delta", text=given.text)
        if given.redacted is not None:
            return self._close() + self._opened("redacted_thinking", data=given.redacted) + self._close()
        out = self._opened("thinking", thinking="", signature="")
        if given.text:
            out += self._delta(type="thinking_delta", thinking=given.text)
        if given.signature is None:
            return out
        return out + self._delta(type="signature_delta", signature=given.signature) + self._close()

    def _start_call(self, start: ToolStart) -> bytes:
        signed = self._said(ThinkingDelta(signature=start.signature)) if start.signature else b""
        self._call = start.number
        closed = self._close()
        return signed + closed + self._opened("tool_use", id=start.id, name=start.name, input={})

    def _opened(self, kind: str, **fields: Any) -> bytes:
        if self._open == kind and kind != "tool_use":
            return b""
        closed = self._close()
        self._open = kind
        self._index += 1
        return closed + _event("content_block_start", index=self._index, content_block={"type": kind, **fields})

    def _delta(self, **delta: Any) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return _event("content_block_stop", index=self._index)

    def end(self) -> bytes:
        if self._failed:
            return b""
        reason, stop_sequence = _reason(self._finish)
        delta = {"stop_reason": reason, "stop_sequence": stop_sequence}
        return self._close() + _event("message_delta", delta=delta, usage=_usage(self._tokens)) + _event("message_stop")


def whole(events: list[Event]) -> bytes:
    """The body of an answer that is not streamed. Raises Garbled."""
    blocks: list[dict[str, Any]] = []
    begin, finish, tokens = Begin("", ""), None, Tokens()
    for given in events:
        if isinstance(given, Begin):
            begin = given
        elif isinstance(given, Finish):
            finish = given
        elif isinstance(given, Used):
            tokens = given.tokens
        else:
            _add(blocks, given)
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = object_of(block["input"])
            if block["input"] is None:
                raise Garbled("the arguments of a tool call are not a JSON object")
    return msgspec.json.encode(_message_of(begin, blocks, finish, tokens))


def error(status: int, message: str) -> bytes:
    """The body of an answer that is a provider's error."""
    kind = "overloaded_error" if status == 529 else ANTHROPIC_TYPES.get(status, "api_error")
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})


def _add(blocks: list[dict[str, Any]], given: Event) -> None:
    last = blocks[-1] if blocks else {"type": ""}
    if isinstance(given, TextDelta):
        if last["type"] != "text":
            blocks.append(last := {"type": "text", "text": ""})
        last["text"] += given.text
    elif isinstance(given, ThinkingDelta) and given.redacted is not None:
        blocks.append({"type": "redacted_thinking", "data": given.redacted})
    elif isinstance(given, ThinkingDelta):
        if last["type"] != "thinking" or last["signature"]:
            blocks.append(last := {"type": "thinking", "thinking": "", "signature": ""})
        last["thinking"] += given.text
        last["signature"] = given.signature or ""
    elif isinstance(given, ToolStart):
        if given.signature:
            blocks.append({"type": "thinking", "thinking": "", "signature": given.signature})
        blocks.append({"type": "tool_use", "id": given.id, "name": given.name, "input": ""})
    elif isinstance(given, ToolDelta):
        calls = [block for block in blocks if block["type"] == "tool_use"]
        calls[given.number]["input"] += given.arguments


def _message_of(begin: Begin, blocks: list[dict[str, Any]], finish: Finish | None, tokens: Tokens) -> dict[str, Any]:
    reason, stop_sequence = _reason(finish)
    return {
        "id": begin.id, "type": "message", "role": "assistant", "model": begin.model, "content": blocks,
        "stop_reason": reason, "stop_sequence": stop_sequence, "usage": _usage(tokens),
    }  # fmt: skip


def _reason(finish: Finish | None) -> tuple[str | None, str | None]:
    if finish is None:
        return None, None
    if finish.stop_sequence is not None:
        return "stop_sequence", finish.stop_sequence
    return WORDS.get(finish.reason, finish.reason), None


def _usage(tokens: Tokens) -> dict[str, Any]:
    details = {"thinking_tokens": tokens.reasoning} if tokens.reasoning else None
    return {
        "input_tokens": max(tokens.input - tokens.cache_read - tokens.cache_write, 0),
        "cache_creation_input_tokens": tokens.cache_write, "cache_read_input_tokens": tokens.cache_read,
        "output_tokens": tokens.output, **said(output_tokens_details=details),
    }  # fmt: skip


def _event(kind: str, **fields: Any) -> bytes:
    return sse.written(msgspec.json.encode({"type": kind, **fields}), kind)
