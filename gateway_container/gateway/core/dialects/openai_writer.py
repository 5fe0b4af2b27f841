"""OpenAI chat completions: answers for clients, whole and streamed."""

import time
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
from gateway.core.dialects.document import said


class Writer:
    """Writes an answer for a client, event by event, or as a whole."""

    def __init__(self, usage_event: bool) -> None:
        self._usage_event = usage_event
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        self._thoughts = _Thoughts()

    def write(self, given: Event) -> bytes:
        """The server-sent events that tell this."""
        if isinstance(given, Used):
            self._usage = _usage(given.tokens)
        elif isinstance(given, Begin):
            self._head = _head(given, "chat.completion.chunk")
            return self._chunk({"role": "assistant", "content": ""})
        elif isinstance(given, Finish):
            return self._chunk({}, "content_filter" if given.reason == "refusal" else given.reason)
        elif isinstance(given, Failed):
            return sse.written(error(given.status, given.message))
        else:
            return self._chunk(self._delta(given))
        return b""

    def _delta(self, given: TextDelta | ThinkingDelta | ToolStart | ToolDelta) -> dict[str, Any]:
        if isinstance(given, TextDelta):
            return {"content": given.text}
        if isinstance(given, ThinkingDelta):
            return said(reasoning_content=given.text or None, reasoning_details=[self._thoughts.detail(given)])
        if isinstance(given, ToolStart):
            return {"tool_calls": [{"index": given.number, **_started(given)}]}
        return {"tool_calls": [{"index": given.number, "function": {"arguments": given.arguments}}]}

    def end(self) -> bytes:
        usage = b""
        if self._usage_event and self._usage is not None:
            usage = sse.written(msgspec.json.encode({**self._head, "choices": [], "usage": self._usage}))
        return usage + sse.written(b"[DONE]")

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self._usage_event else {}  # its place, until the last chunk
        return sse.written(msgspec.json.encode({**self._head, "choices": [choice], **usage}))


def whole(events: list[Event]) -> bytes:
    """The body of an answer that is not streamed."""
    head: dict[str, Any] = {}
    message = _Message()
    reason, usage = "stop", _usage(Tokens())
    for given in events:
        if isinstance(given, Begin):
            head = _head(given, "chat.completion")
        elif isinstance(given, Finish):
            reason = "content_filter" if given.reason == "refusal" else given.reason
        elif isinstance(given, Used):
            usage = _usage(given.tokens)
        else:
            message.add(given)
    choice = {"index": 0, "message": message.said(), "logprobs": None, "finish_reason": reason}
    return msgspec.json.encode({**head, "choices": [choice], "usage": usage})


def error(status: int, message: str) -> bytes:
    """The body of an answer that is a provider's error."""
    kind = "rate_limit_error" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
    return msgspec.json.encode({"error": {"message": message, "type": kind, "code": None, "param": None}})


class _Thoughts:
    """Numbers the thoughts of an answer, so that clients can put their pieces together."""

    def __init__(self) -> None:
        self._number = 0
        self._open = False

    def detail(self, thought: ThinkingDelta) -> dict[str, Any]:
        """A signature ends a thought; a sealed one is whole."""
        if thought.redacted is not None:
            self._number += self._open
        detail = _detail(thought, self._number)
        self._open = thought.redacted is None and thought.signature is None
        self._number += not self._open
        return detail


class _Message:
    def __init__(self) -> None:
        self._thoughts = _Thoughts()
        self.text = ""
        self.thoughts = ""
        self.details: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []

    def add(self, given: Event) -> None:
        if isinstance(given, TextDelta):
            self.text += given.text
        elif isinstance(given, ThinkingDelta):
            self.thoughts += given.text
            self._add_detail(self._thoughts.detail(given))
        elif isinstance(given, ToolStart):
            self.calls.append(_started(given))
        elif isinstance(given, ToolDelta):
            self.calls[given.number]["function"]["arguments"] += given.arguments

    def _add_detail(self, detail: dict[str, Any]) -> None:
        """Pieces of one thought are one detail."""
        last = self.details[-1] if self.details else {}
        if detail["index"] == last.get("index"):
            last["text"] = last.get("text", "") + detail.get("text", "")
            last.update(said(signature=detail.get("signature")))
        else:
            self.details.append(detail)

    def said(self) -> dict[str, Any]:
        return {
            "role": "assistant", "content": self.text or None, "refusal": None,
            **said(reasoning_content=self.thoughts or None, reasoning_details=self.details or None,
                   tool_calls=self.calls or None),
        }  # fmt: skip


def _head(begin: Begin, kind: str) -> dict[str, Any]:
    return {"id": begin.id, "object": kind, "created": int(time.time()), "model": begin.model}


def _detail(thought: ThinkingDelta, index: int) -> dict[str, Any]:
    if thought.redacted is not None:
        return {"type": "reasoning.encrypted", "index": index, "data": thought.redacted}
    return said(type="reasoning.text", index=index, text=thought.text or None, signature=thought.signature)


def _started(start: ToolStart) -> dict[str, Any]:
    extra = {"google": {"thought_signature": start.signature}} if start.signature else None
    called = {"name": start.name, "arguments": ""}
    return {"id": start.id, "type": "function", "function": called, **said(extra_content=extra)}


def _usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens.input, "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }  # fmt: skip
