"""Token usage, read from an answer or counted where the answer does not say."""

from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.core.shapes import Answer, Details, UsageHolder, WireUsage

if TYPE_CHECKING:
    from gateway.core.exchange import Exchange

MAX_EVENT_BYTES: Final = 1 << 20
MAX_READ_BYTES: Final = 32 << 20  # of a longer JSON answer the end is read
TAIL_BYTES: Final = 1 << 20
MOST_TOKENS: Final = 2**31 - 1  # more is an engine's mistake, and would not fit where it is added up
BYTES_PER_TOKEN: Final = 4
# Their JSON answers are text, which can be counted where they do not say what they took.
TEXT_PATHS: Final = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"})
USAGE: Final = b'"usage"'
NO_USAGE: Final = (b'"usage":null', b'"usage": null')  # in every chunk of some engines
_decode: Final = msgspec.json.Decoder(Answer).decode
_decode_body: Final = msgspec.json.Decoder(UsageHolder).decode
_values: Final = msgspec.structs.astuple
_decode_any: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Usage:
    """Tokens that were used; the input holds what was cached of it, the output what may have been made unseen. Never
    changed once it is made."""

    __slots__ = ("cached_tokens", "input_tokens", "output_tokens", "unseen_tokens")

    def __init__(self, input_tokens: int = 0, output_tokens: int = 0, cached: int = 0, unseen: int = 0) -> None:
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.cached_tokens = cached
        self.unseen_tokens = unseen

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Usage) and self._numbers() == other._numbers()

    def __hash__(self) -> int:
        return hash(self._numbers())

    def __repr__(self) -> str:
        return f"Usage{self._numbers()}"

    def _numbers(self) -> tuple[int, int, int, int]:
        return self.input_tokens, self.output_tokens, self.cached_tokens, self.unseen_tokens


NOTHING: Final = Usage()


def of_body(body: bytes) -> Usage | None:
    """Usage in a complete JSON answer, None when it has none."""
    at = body.rfind(USAGE)
    wire = _wire(b"{" + body[at:]) if at > 0 else None
    if wire is None:
        wire = _wire(body)
    if wire is None:
        return None
    given, made, _, details, _, _, _, _, _ = _values(wire)  # compiled code reads attributes of structs slowly
    if given is None or made is None or (details is not None and details.cached_tokens):
        return _normal(wire)
    usage = Usage(given, made)
    sound = usage.input_tokens >= 0 and usage.output_tokens >= 0
    return usage if sound and usage.input_tokens + usage.output_tokens <= MOST_TOKENS else _normal(wire)


def _wire(body: bytes) -> WireUsage | None:
    """The top-level usage. Of an answer, what begins with its usage is an answer, too, and quick to read; where another
    object holds that usage, its own end is left over and the JSON is not valid."""
    try:
        return _decode_body(body).usage
    except msgspec.ValidationError:
        return _odd_holder(_document(body)).usage
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


# --- usage of another shape than the usual one --------------------------------------------------------------------


def _document(body: bytes) -> dict[str, Any]:
    try:
        return _decode_any(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def _odd_holder(document: Any) -> UsageHolder:
    """What can be read of numbers such as ``3.0`` and beside details that are none."""
    usage = document.get("usage") if isinstance(document, dict) else None
    if not isinstance(usage, dict):
        return UsageHolder()
    wire = WireUsage()
    for name in WireUsage.__struct_fields__:
        value = usage.get(name)
        if name.endswith("_details"):
            cached = _whole(value.get("cached_tokens")) if isinstance(value, dict) else None
            setattr(wire, name, Details(cached))
        else:
            setattr(wire, name, _whole(value))
    return UsageHolder(wire)


def _whole(value: Any) -> int | None:
    """A number as a whole one, rounded up; None when it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return -int(-min(max(value, -1), MOST_TOKENS) // 1)


def _odd_answer(document: dict[str, Any]) -> Answer:
    choices = document.get("choices")
    return Answer(
        _odd_holder(document).usage,
        [msgspec.Raw(b"null")] * len(choices) if isinstance(choices, list) else None,
        _odd_holder(document.get("response")),
        _odd_holder(document.get("message")),
    )


# ------------------------------------------------------------------------------------------------------------------


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


class BodyReader:
    """Keeps a JSON answer, or the end of a long one, where its usage stands. ``encoded``: it is compressed."""

    __slots__ = ("encoded", "kept_bytes", "parts", "size")

    def __init__(self, encoded: bool = False) -> None:
        self.encoded = encoded
        self.parts: list[bytes] = []
        self.kept_bytes = 0
        self.size = 0

    def feed(self, data: bytes) -> None:
        self.parts.append(data)
        self.size += len(data)
        self.kept_bytes += len(data)
        if self.kept_bytes > MAX_READ_BYTES:
            self.parts = [b"".join(self.parts)[-TAIL_BYTES:]]
            self.kept_bytes = len(self.parts[0])

    def usage(self) -> Usage | None:
        return of_body(b"".join(self.parts))


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
        named = data.count(USAGE)
        if named and named > data.count(NO_USAGE[0]) + data.count(NO_USAGE[1]):
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
        answer = self._read(event) if USAGE in event else None
        return answer is not None and answer.usage is not None and answer.choices == []

    def _read(self, event: bytes) -> Answer | None:
        start = event.find(b"data:")
        if start < 0:
            return None
        text = event[start + 5 :].strip()
        try:
            answer = _decode(text)
        except msgspec.ValidationError:
            answer = _odd_answer(_document(text))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        self._merge(answer)
        return answer

    def _merge(self, answer: Answer) -> None:
        for holder in (answer, answer.response, answer.message):
            wire = holder.usage if holder is not None else None
            if wire is None:
                continue
            # Anthropic splits usage over two events; running totals only ever grow.
            self.usage = larger(_normal(wire), self.usage)


def used(reader: StreamReader | None, body: BodyReader | None, exchange: "Exchange", whole: bool) -> tuple[Usage, str]:
    """What a deployment used for an answer that nothing translated, and how that is known (a row's ``usage_source``).
    ``body`` is what is no event stream; ``whole``: the answer is complete."""
    if reader is not None:
        return read_or_counted(reader.usage, reader.events, exchange, whole)
    if exchange.deployment is None:
        return NOTHING, "none"
    size, encoded = (body.size, body.encoded) if body is not None else (0, False)
    if not whole:
        return ended_early(exchange, size // BYTES_PER_TOKEN, encoded), "counted"
    found = body.usage() if body is not None else None
    return (found, "upstream") if found is not None else untold(exchange, size, encoded)


def untold(exchange: "Exchange", size: int, encoded: bool = False) -> tuple[Usage, str]:
    """Of a complete answer of ``size`` bytes that does not say what it took: text is counted."""
    if exchange.path not in TEXT_PATHS or not size:
        return NOTHING, "none"
    pieces = size // BYTES_PER_TOKEN
    return ended_early(exchange, pieces, True) if encoded else counted(len(exchange.body), pieces), "counted"


def read_or_counted(read: Usage | None, pieces: int, exchange: "Exchange", whole: bool) -> tuple[Usage, str]:
    """What was read of a stream; of one that ended early at least what was seen of it."""
    if read is not None and whole:
        return read, "upstream"
    seen = counted(len(exchange.body), pieces) if whole else ended_early(exchange, pieces)
    if read is not None and read.input_tokens:  # some say first what the prompt took
        seen = Usage(read.input_tokens, seen.output_tokens, unseen=seen.unseen_tokens)
    most = larger(seen, read)
    return most, "upstream" if most == read else "counted"


def ended_early(exchange: "Exchange", pieces: int, encoded: bool = False) -> Usage:
    """What was used at most, as far as it was not seen, where a budget must not be passed: a client that leaves before
    the usage is told would choose its price otherwise. Without a budget an estimate."""
    call = exchange.call
    if call is None or not exchange.budgeted():
        return counted(len(exchange.body), pieces)
    if (call.stream and not encoded) or exchange.path not in TEXT_PATHS:
        return Usage(exchange.given, pieces)
    held = exchange.amounts[1] - exchange.given
    return Usage(exchange.given, held, unseen=max(held - pieces, 0))


def larger(one: Usage, other: Usage | None) -> Usage:
    """The larger of each number."""
    if other is None:
        return one
    made = max(one.output_tokens, other.output_tokens)
    seen = max(one.output_tokens - one.unseen_tokens, other.output_tokens - other.unseen_tokens)
    given, cached = max(one.input_tokens, other.input_tokens), max(one.cached_tokens, other.cached_tokens)
    return Usage(given, made, cached, made - seen)


def counted(request_bytes: int, pieces: int) -> Usage:
    """An estimate where an answer does not say: four bytes a prompt token, a piece of output a token."""
    return Usage(max(request_bytes // BYTES_PER_TOKEN, 1), pieces)
