"""Whole answers kept for repeated requests: exact, per project, bounded in bytes, least recently used go first.

Two requests are the same when their project, endpoint, path, the headers that change an answer and the JSON of their
bodies are, whatever the order of names; ``stream`` and ``stream_options`` do not count. An answer is kept in the form
in which it was given (whole, or as the events of one kind of stream) and replayed byte for byte; where there is only
the whole one, a stream of chat or text completions is made from it. The other way round would lose what only whole
answers say.
"""

from collections import OrderedDict
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from gateway.core import sse
from gateway.core.stage import Header
from gateway.core.usage import Usage

WHOLE = b""  # the form of an answer that was not streamed
ANSWER_HEADERS = (b"anthropic-beta", b"anthropic-version", b"openai-beta")
# Their answers depend on what was said before, which the body does not tell.
STATEFUL = ("previous_response_id", "conversation", "background")
LAST_WORDS = {"/v1/messages": b"message_stop", "/v1/responses": b"response.completed"}
NAMING = frozenset({"id", "object", "created", "model"})
ENTRY_BYTES = 512  # about what an entry takes beside its body
Document = dict[str, Any]


class Chunk(NamedTuple):
    """How the stream of a path says what its whole answer says in ``message``."""

    object: str
    message: str
    nothing: Document


CHUNKS = {
    "/v1/chat/completions": Chunk("chat.completion.chunk", "message", {"delta": {}}),
    "/v1/completions": Chunk("text_completion", "text", {"text": ""}),
}


class Request(NamedTuple):
    """What is asked, without how it shall be delivered; ``form`` is that."""

    key: bytes
    form: bytes


class Stored(NamedTuple):
    """An answer in one form."""

    headers: list[Header]
    body: bytes
    usage: Usage
    expires_s: float


def request_of(scope: bytes, path: str, headers: dict[bytes, bytes], body: bytes) -> Request | None:
    """None for what must not be answered from a cache. ``scope``: project and endpoint, in bytes that differ where
    they do."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if any(fields.get(name) for name in STATEFUL):
        return None
    streamed, options = fields.pop("stream", None), fields.pop("stream_options", None)
    form = b"events" + msgspec.json.encode(options, order="deterministic") if streamed else WHOLE
    asked = [path, [headers.get(name, b"").decode("latin-1") for name in ANSWER_HEADERS], fields]
    return Request(sha256(scope + msgspec.json.encode(asked, order="deterministic")).digest(), form)


class ResponseCache:
    """Answers by request, least recently used first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._stored: OrderedDict[Request, Stored] = OrderedDict()

    @property
    def max_entry_bytes(self) -> int:
        return self.max_bytes // 8

    def find(self, request: Request, path: str, now_s: float) -> Stored | None:
        """The answer in the form that is asked for."""
        found = self._get(request, now_s)
        if found is None and request.form != WHOLE and path in CHUNKS:
            whole = self._get(Request(request.key, WHOLE), now_s)
            found = as_stream(whole, request.form, path) if whole is not None else None
        self.hits += found is not None
        self.misses += found is None
        return found

    def _get(self, request: Request, now_s: float) -> Stored | None:
        stored = self._stored.get(request)
        if stored is not None and stored.expires_s <= now_s:
            self._drop(request)
            return None
        if stored is not None:
            self._stored.move_to_end(request)
        return stored

    def put(self, request: Request, stored: Stored) -> None:
        """Keep an answer, if it is not too large, and make room for it."""
        size = _size(stored)
        if size > self.max_entry_bytes:
            return
        self._drop(request)
        self._stored[request] = stored
        self.bytes += size
        while self.bytes > self.max_bytes:
            self._drop(next(iter(self._stored)))

    def _drop(self, request: Request) -> None:
        stored = self._stored.pop(request, None)
        if stored is not None:
            self.bytes -= _size(stored)


def _size(stored: Stored) -> int:
    return len(stored.body) + sum(len(name) + len(value) for name, value in stored.headers) + ENTRY_BYTES


# --- what may be kept -------------------------------------------------------------------------------------------------


def is_complete(path: str, form: bytes, body: bytes) -> bool:
    """Whether an answer with status 200 is really one: engines report errors in a stream's events, too."""
    if form == WHOLE:
        return _is_answer(body)
    reader = sse.EventReader()
    try:
        payloads = [data for event in reader.feed(body) if (data := sse.payload(event)) is not None]
    except sse.EventTooLong:
        return False
    if not payloads or reader.rest().strip():
        return False
    if path in LAST_WORDS:
        return LAST_WORDS[path] in payloads[-1] and all(map(_is_answer, payloads))
    return payloads[-1] == sse.DONE and all(map(_is_answer, payloads[:-1]))


def _is_answer(data: bytes) -> bool:
    try:
        document = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(document, dict) and not document.get("error")


# --- a stream from a whole answer -------------------------------------------------------------------------------------


def as_stream(whole: Stored, form: bytes, path: str) -> Stored | None:
    """None when the client asked for more than a stream and its usage, or the answer has not the usual shape."""
    options = msgspec.json.decode(form.removeprefix(b"events")) or {}
    answer = msgspec.json.decode(whole.body)
    if not isinstance(options, dict) or set(options) - {"include_usage"} or not _is_usual(answer, path):
        return None
    usage = answer.pop("usage", None)
    events = _events(answer, path, usage if options.get("include_usage") else None)
    body = b"".join(b"data: %b\n\n" % msgspec.json.encode(event) for event in events) + b"data: [DONE]\n\n"
    headers = [header for header in whole.headers if header[0] != b"content-type"]
    return whole._replace(headers=[*headers, (b"content-type", b"text/event-stream; charset=utf-8")], body=body)


def _is_usual(answer: Document, path: str) -> bool:
    choices, message = answer.get("choices"), CHUNKS[path].message
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return False
    return all(isinstance(choice.get(message), dict if message == "message" else str) for choice in choices)


def _events(answer: Document, path: str, usage: Any) -> list[Document]:
    """Everything that the choices say in one event, their ends in the next, then the usage."""
    chunk = CHUNKS[path]
    choices = answer.pop("choices")
    naming = {**{name: answer[name] for name in answer if name in NAMING}, "object": chunk.object}
    said = [_said(choice, chunk) for choice in choices]
    ended = [
        {"index": choice.get("index", 0), **chunk.nothing, "finish_reason": choice.get("finish_reason")}
        for choice in choices
    ]
    events = [{**answer, **naming, "choices": said}, {**naming, "choices": ended}]
    return [*events, {**naming, "choices": [], "usage": usage}] if usage is not None else events


def _said(choice: Document, chunk: Chunk) -> Document:
    said = {**choice, "finish_reason": None}
    if chunk.message == "message":
        delta = said["delta"] = dict(said.pop("message"))
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    return said
