"""Token usage, read from an answer or counted where the answer does not say."""

from typing import TYPE_CHECKING, Final

import msgspec

from gateway.core.shapes import Answer, Details, Usage, UsageHolder, WireUsage

if TYPE_CHECKING:
    from gateway.core.exchange import Exchange

MAX_EVENT_BYTES: Final = 1 << 20
MOST_TOKENS: Final = 2**31 - 1  # more is an engine's mistake, and would not fit where it is added up
USAGE: Final = b'"usage":'
NOTHING: Final = Usage()
_decode: Final = msgspec.json.Decoder(Answer).decode
_decode_body: Final = msgspec.json.Decoder(UsageHolder).decode


def of_body(body: bytes) -> Usage | None:
    """Usage in a complete JSON answer, None when it has none."""
    at = body.rfind(USAGE)
    wire = _wire(b"{" + body[at:]) if at > 0 else None
    if wire is None:
        wire = _wire(body)
    if wire is None:
        return None
    if wire.prompt_tokens is not None and wire.completion_tokens is not None and wire.completion_tokens >= 0:
        details = wire.prompt_tokens_details
        cached = details.cached_tokens if details is not None else None
        if wire.prompt_tokens >= 0 and not cached and wire.prompt_tokens + wire.completion_tokens <= MOST_TOKENS:
            return Usage(wire.prompt_tokens, wire.completion_tokens)
    return _normal(wire)


def _wire(body: bytes) -> WireUsage | None:
    """The top-level usage. Of an answer, what begins with its usage is an answer, too, and quick to read; where another
    object holds that usage, its own end is left over and the JSON is not valid."""
    try:
        return _decode_body(body).usage
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _normal(wire: WireUsage) -> Usage:
    if wire.input_tokens is None and wire.output_tokens is None:
        prompt = wire.prompt_tokens if wire.prompt_tokens is not None else wire.total_tokens or 0
        return Usage(_sound(prompt), _sound(wire.completion_tokens), _cached(wire.prompt_tokens_details))
    # Anthropic counts cached input apart; OpenAI's Responses API counts it in.
    read = wire.cache_read_input_tokens or 0
    given = (wire.input_tokens or 0) + read + (wire.cache_creation_input_tokens or 0)
    cached = read + _cached(wire.input_tokens_details)
    return Usage(_sound(given), _sound(wire.output_tokens), _sound(cached))


def _sound(tokens: int | None) -> int:
    return min(max(tokens or 0, 0), MOST_TOKENS)


def _cached(details: Details | None) -> int:
    return _sound(details.cached_tokens) if details is not None else 0


class StreamReader:
    """Reads usage from a server-sent event stream while it passes; takes out the usage event nobody asked for.

    Cheap by design: a chunk of whole events is searched for one word, and parsed only when that word is there.
    """

    __slots__ = ("events", "hide", "pending", "usage")

    def __init__(self, hide: bool) -> None:
        self.hide = hide
        self.events = 0
        self.pending = b""
        self.usage: Usage | None = None

    def feed(self, data: bytes) -> bytes:
        """What to pass on of a chunk. Incomplete events wait only while usage events are taken out."""
        self.events += data.count(b"data:")
        if self.pending or not data.endswith(b"\n\n"):
            return self._feed_part(data)
        if data.find(b'"usage":{') >= 0 or data.find(b'"usage": {') >= 0:
            return self._read_events(data)
        return data

    def rest(self) -> bytes:
        """What is left at the end of the stream: an event without its empty line."""
        left, self.pending = self.pending, b""
        return left if self.hide else b""

    def _feed_part(self, data: bytes) -> bytes:
        whole = self.pending + data
        end = whole.rfind(b"\n\n") + 2
        if end == 1:
            end = whole.rfind(b"\r\n\r\n") + 4 if b"\r\n\r\n" in whole else 0
        if len(whole) - end > MAX_EVENT_BYTES:
            end = len(whole)
        self.pending = whole[end:]
        kept = self._read_events(whole[:end]) if end else b""
        return kept if self.hide else data

    def _read_events(self, data: bytes) -> bytes:
        separator = b"\r\n\r\n" if b"\r\n\r\n" in data else b"\n\n"
        kept = [event for event in data.split(separator) if not self._is_usage_only(event)]
        return separator.join(kept) if self.hide else data

    def _is_usage_only(self, event: bytes) -> bool:
        answer = self._read(event) if b'"usage"' in event else None
        return answer is not None and answer.usage is not None and answer.choices == []

    def _read(self, event: bytes) -> Answer | None:
        start = event.find(b"data:")
        if start < 0:
            return None
        try:
            answer = _decode(event[start + 5 :].strip())
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        self._merge(answer)
        return answer

    def _merge(self, answer: Answer) -> None:
        for holder in (answer, answer.response, answer.message):
            wire = holder.usage if holder is not None else None
            if wire is None:
                continue
            new, old = _normal(wire), self.usage or Usage()
            # Anthropic splits usage over two events; running totals only ever grow.
            self.usage = Usage(
                max(new.input_tokens, old.input_tokens),
                max(new.output_tokens, old.output_tokens),
                max(new.cached_tokens, old.cached_tokens),
            )


def used(reader: StreamReader | None, parts: list[bytes], exchange: "Exchange", whole: bool) -> tuple[Usage, str]:
    """What a deployment used for an answer that nothing translated, and how that is known (a row's ``usage_source``).
    ``parts`` is a body that is no event stream; ``whole``: the answer is complete."""
    if reader is not None:
        if whole and reader.usage is not None:
            return reader.usage, "upstream"
        return counted(len(exchange.body), reader.events), "counted"
    if whole:
        found = of_body(b"".join(parts))
        return (found, "upstream") if found is not None else (NOTHING, "none")
    return (NOTHING, "none") if exchange.deployment is None else (counted(len(exchange.body), 0), "counted")


def counted(request_bytes: int, chunks: int) -> Usage:
    """An estimate for a stream that ended before it said: four bytes a prompt token, one chunk an output token."""
    return Usage(max(request_bytes // 4, 1), chunks)
