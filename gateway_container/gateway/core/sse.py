"""Server-sent events, as far as engines use them (HTML Living Standard, 9.2): whole events out of pieces of bytes."""

import re
from collections.abc import Iterable

from gateway.core.stage import Garbled

MAX_EVENT_BYTES = 8 << 20
BLANK_LINE = re.compile(rb"\r?\n\r?\n")
FIELD = re.compile(rb"(?:data|event|id|retry)(?::|$)|:|$")  # or a comment, or nothing
DONE = b"[DONE]"


class EventTooLong(Garbled):
    """The deployment sends an event that does not end."""


class EventReader:
    """``feed`` gives the events that became complete, byte for byte, each with the empty line that ends it."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Raises EventTooLong."""
        whole = self._pending + data
        events, at = [], 0
        for end in BLANK_LINE.finditer(whole, max(len(self._pending) - 3, 0)):
            events.append(whole[at : end.end()])
            at = end.end()
        self._pending = whole[at:]
        if len(self._pending) > MAX_EVENT_BYTES:
            raise EventTooLong
        return events

    def rest(self) -> bytes:
        """What is left at the end: an event without its empty line."""
        left, self._pending = self._pending, b""
        return left


def sound(event: bytes) -> bool:
    """Whether it has no line but what the standard names: others may mean something to whoever reads them."""
    return _usual(event) or all([FIELD.match(line) for line in event.splitlines()])


def _usual(event: bytes) -> bool:
    return event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and event.endswith(b"\n\n")


def payload(event: bytes) -> bytes | None:
    """What its data lines say, joined; None for a comment."""
    if _usual(event):
        return event[6:-2]
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def with_payload(event: bytes, data: bytes) -> bytes:
    """The same event with other data, in one line; its other lines stay."""
    if event.startswith(b"data:") and event.count(b"\n") == 2:
        return b"data: %b\n\n" % data
    kept = [line for line in event.splitlines() if line and not line.startswith(b"data:")]
    return b"".join([*(line + b"\n" for line in kept), b"data: ", data, b"\n\n"])


def payloads(events: Iterable[bytes]) -> list[bytes]:
    """What several events say."""
    return [data for event in events if (data := payload(event)) is not None]


def written(data: bytes, name: str = "") -> bytes:
    """An event of one line of data."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data) if name else b"data: %b\n\n" % data
