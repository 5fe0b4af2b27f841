"""How the body of an HTTP/1.1 response is delimited: strict, because what follows goes to a client's connection."""

import re
from typing import Final

from gateway.core.headers import TO_CLIENT
from gateway.core.stage import Garbled, encodes

CHUNK_SIZE: Final = re.compile(rb"[0-9a-fA-F]{1,8}")
PART_OF_SIZE: Final = re.compile(rb"[0-9a-fA-F]{0,8}\r?")
STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ((?!101)[1-5]\d\d)(?: |$)")  # 101 would answer what is never asked
TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
MAX_CHUNK_LINE: Final = 10
MAX_HEAD_BYTES: Final = 64 << 10
LENGTH: Final = 1
CHUNKED: Final = 2
UNTIL_CLOSE: Final = 3
# What a header line can be.
PASSED: Final = 0
DROPPED: Final = 1
CONTENT_LENGTH: Final = 2
TRANSFER_ENCODING: Final = 3
CONNECTION_CLOSE: Final = 4
EVENT_STREAM: Final = 5
ENCODED: Final = 6
REMEMBERED: Final = 4096
_status_lines: Final[dict[bytes, tuple[int, bool]]] = {}
_lines: Final[dict[bytes, tuple[int, bytes]]] = {}


class BadFraming(Garbled):
    """The deployment's answer is not HTTP/1.1 as we accept it."""


class Head:
    """Status and framing of a response, and the header lines that are passed on.

    Engines repeat themselves: what a line means is remembered, so that most lines cost one look-up.
    """

    __slots__ = ("encoded", "event_stream", "framing", "keep_alive", "length", "passed", "status")

    def __init__(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        first = _status_lines.get(lines[0])
        self.status, self.keep_alive = first if first is not None else _status_line(lines[0])
        self.framing = UNTIL_CLOSE
        self.length = -1
        self.passed: list[bytes] = []
        self.event_stream = False  # whose events can be read
        self.encoded = False
        del lines[0]
        for line in lines:
            kind, value = _lines.get(line) or _header_line(line)
            if kind == PASSED:
                self.passed.append(value)
            elif kind != DROPPED:
                self._special(kind, value)
        if self.encoded:
            self.event_stream = False
        if self.framing == UNTIL_CLOSE and self.status not in (204, 304):
            self.keep_alive = False

    def _special(self, kind: int, value: bytes) -> None:
        if kind == CONTENT_LENGTH:
            length = int(value)
            if self.framing == CHUNKED or (self.framing == LENGTH and self.length != length):
                raise BadFraming("content-length")
            self.framing, self.length = LENGTH, length
        elif kind == TRANSFER_ENCODING:
            if self.framing != UNTIL_CLOSE:
                raise BadFraming("transfer-encoding")
            self.framing = CHUNKED
        elif kind == CONNECTION_CLOSE:
            self.keep_alive = False
        else:
            self.encoded = self.encoded or kind == ENCODED
            self.event_stream = self.event_stream or kind == EVENT_STREAM
            self.passed.append(value)


def _status_line(line: bytes) -> tuple[int, bool]:
    match = STATUS_LINE.match(line)
    if match is None:
        raise BadFraming("status line")
    meaning = int(match[1]), line[7] == 0x31
    if len(line) < 64 and len(_status_lines) < REMEMBERED:
        _status_lines[line] = meaning
    return meaning


def _header_line(line: bytes) -> tuple[int, bytes]:
    if line[:16].lower() == b"content-length: " and line[16:].isdigit() and len(line) < 32:
        return CONTENT_LENGTH, line[16:]
    name, colon, value = line.partition(b":")
    if not colon or TOKEN.fullmatch(name) is None or b"\n" in value or b"\r" in value or b"\0" in value:
        raise BadFraming("header line")
    name = name.lower()
    meaning = _meaning(name, value.strip(b" \t"))
    if name not in (b"date", b"content-length", b"x-request-id") and len(line) < 256 and len(_lines) < REMEMBERED:
        _lines[line] = meaning
    return meaning


def _meaning(name: bytes, value: bytes) -> tuple[int, bytes]:
    if name == b"content-length":
        if not value.isdigit() or len(value) > 15:
            raise BadFraming("content-length")
        return CONTENT_LENGTH, value
    if name == b"transfer-encoding":
        if value.lower() != b"chunked":
            raise BadFraming("transfer-encoding")
        return TRANSFER_ENCODING, b""
    if name == b"connection":
        return (CONNECTION_CLOSE if b"close" in value.lower() else DROPPED), b""
    if name == b"content-type" and value.lower().startswith(b"text/event-stream"):
        return EVENT_STREAM, b"%b: %b\r\n" % (name, value)
    if encodes(name, value):
        return ENCODED, b"%b: %b\r\n" % (name, value)
    return (PASSED, b"%b: %b\r\n" % (name, value)) if name in TO_CLIENT else (DROPPED, b"")


def is_no_head(data: bytes) -> bool:
    """Whether what has come of a head can never become one: it need not be waited for."""
    return not b"HTTP/1.".startswith(data[:7]) or b"\n\n" in data or len(data) > MAX_HEAD_BYTES


class Dechunker:
    """Takes chunked framing apart. ``feed`` gives the payload pieces of a segment; ``raw`` says whether the segment
    holds whole chunks only, so that it may be passed on as it is."""

    __slots__ = ("_buffer", "_left", "_trailer", "done", "raw", "surplus")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # of the chunk under way, with the CRLF that ends it
        self._trailer = False
        self.done = False
        self.raw = False
        self.surplus = False

    def feed(self, data: bytes) -> list[bytes]:
        """Raises BadFraming."""
        whole = self._left == 0 and not self._buffer and not self._trailer
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while at < size and not self.done:
            if self._trailer:
                whole = False
                at = self._end(data, at)
            elif self._left:
                at = self._inside(data, at, pieces)
            else:
                at = self._size_line(data, at)
                if at < 0:
                    break
        self.surplus = self.done and at < size
        self.raw = whole and not self._left and not self._buffer and not self._trailer and not self.surplus
        return pieces

    def _size_line(self, data: bytes, at: int) -> int:
        """Position after the line, -1 when it is not complete yet."""
        end = data.find(b"\r\n", at, at + MAX_CHUNK_LINE)
        if end < 0:
            self._buffer = data[at:]
            if PART_OF_SIZE.fullmatch(self._buffer) is None:
                raise BadFraming("chunk size")
            return -1
        line = data[at:end]
        if CHUNK_SIZE.fullmatch(line) is None:
            raise BadFraming("chunk size")
        size = int(line, 16)
        if size == 0:
            if data.startswith(b"\r\n", end + 2):
                self.done = True
                return end + 4
            self._trailer = True
        else:
            self._left = size + 2
        return end + 2

    def _inside(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        left = self._left
        stop = min(at + left - 2, len(data)) if left > 2 else at
        if stop > at:
            pieces.append(data[at:stop])
            left -= stop - at
        if left <= 2 and stop < len(data):
            ending = data[stop : stop + left]
            if not b"\r\n"[2 - left :].startswith(ending):
                raise BadFraming("chunk end")
            left -= len(ending)
            stop += len(ending)
        self._left = left
        return stop

    def _end(self, data: bytes, at: int) -> int:
        """Trailers are read and dropped."""
        if data.startswith(b"\r\n", at):
            self.done, self._trailer = True, False
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            if len(data) - at > MAX_HEAD_BYTES:
                raise BadFraming("trailers")
            self._buffer = data[at:]
            return len(data)
        self.done, self._trailer = True, False
        return end + 4
