"""How the body of an HTTP/1.1 response is delimited: strict, because what follows goes to a client's connection."""

import re

CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}")
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: |$)")
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
MAX_CHUNK_LINE = 10
MAX_HEAD_BYTES = 64 << 10
LENGTH, CHUNKED, UNTIL_CLOSE = range(1, 4)


class BadFraming(Exception):
    """The deployment's answer is not HTTP/1.1 as we accept it."""


class Head:
    """Status and headers of a response, names in lower case."""

    __slots__ = ("framing", "headers", "keep_alive", "length", "status")

    def __init__(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        match = STATUS_LINE.match(lines[0])
        if match is None:
            raise BadFraming("status line")
        self.status = int(match[1])
        self.keep_alive = lines[0][7] == 0x31
        self.framing = UNTIL_CLOSE
        self.length = -1
        self.headers: list[tuple[bytes, bytes]] = []
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon or TOKEN.fullmatch(name) is None or b"\n" in value or b"\r" in value or b"\0" in value:
                raise BadFraming("header line")
            self._header(name.lower(), value.strip(b" \t"))
        if self.framing == UNTIL_CLOSE and self.status not in (204, 304):
            self.keep_alive = False

    def _header(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            self._content_length(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or self.framing != UNTIL_CLOSE:
                raise BadFraming("transfer-encoding")
            self.framing = CHUNKED
        elif name == b"connection":
            if b"close" in value.lower():
                self.keep_alive = False
        else:
            self.headers.append((name, value))

    def _content_length(self, value: bytes) -> None:
        if not value.isdigit() or len(value) > 15 or self.framing == CHUNKED:
            raise BadFraming("content-length")
        if self.framing == LENGTH and self.length != int(value):
            raise BadFraming("two content-lengths")
        self.framing = LENGTH
        self.length = int(value)


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
            if len(data) - at >= MAX_CHUNK_LINE:
                raise BadFraming("chunk size")
            self._buffer = data[at:]
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
