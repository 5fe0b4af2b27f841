"""The input of a batch: JSON lines, each a request. Nothing in it is trusted."""

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

import msgspec

MAX_LINES: Final = 50_000
MAX_LINES_WITH_BLANK: Final = 2 * MAX_LINES  # millions of them would keep a gateway busy
MAX_LINE_BYTES: Final = 4 << 20
MAX_ERRORS: Final = 100
MAX_ID_CHARS: Final = 512
ID_BYTES: Final = 16  # that are kept of each
BLANK: Final = re.compile(rb"\s*")


class Facts(msgspec.Struct, frozen=True):
    """What is looked at of a request's body."""

    model: str
    stream: bool | None = None


class Checked(msgspec.Struct, frozen=True):
    custom_id: str
    method: str
    url: str
    body: Facts


class Line(msgspec.Struct, frozen=True):
    """A line that was checked before."""

    custom_id: str
    body: msgspec.Raw


class Checker:
    """Looks at a whole input as it comes. ``errors`` are those of its lines, ``total`` is how many requests it has."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.errors: list[dict[str, Any]] = []
        self.total = 0
        self._number = 0
        self._ids: set[bytes] = set()
        self._rest = b""

    @property
    def hopeless(self) -> bool:
        """Nobody would read more errors, or the rest is no line."""
        return len(self.errors) >= MAX_ERRORS or len(self._rest) > MAX_LINE_BYTES or self._too_many

    @property
    def _too_many(self) -> bool:
        return self.total > MAX_LINES or self._number > MAX_LINES_WITH_BLANK

    def feed(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._line(line)

    def end(self) -> None:
        if not self._too_many:
            self._line(self._rest)
        if self._too_many:
            text = f"A batch has {MAX_LINES:,} requests at most, and {MAX_LINES_WITH_BLANK:,} lines with blank ones."
            self._error("too_many_tasks", text, None)
        elif self.total == 0 and not self.errors:
            self._error("empty_file", "The input has no requests.", None)

    def _line(self, line: bytes) -> None:
        self._number += 1
        if len(self.errors) >= MAX_ERRORS:
            return
        if len(line) > MAX_LINE_BYTES:  # a blank one, too: what is behind it may not be missed
            self.total += 1
            self._error("line_too_long", f"A line has {MAX_LINE_BYTES >> 20} MiB at most.", self._number)
        elif line.strip():
            self.total += 1
            self._request(line)

    def _request(self, line: bytes) -> None:
        try:
            checked = msgspec.json.decode(line, type=Checked)
        except (msgspec.ValidationError, UnicodeDecodeError) as error:
            self._error("invalid_request", f"The line is no request of a batch: {error}"[:500], self._number)
        except (msgspec.DecodeError, RecursionError):
            self._error("invalid_json_line", "The line is not valid JSON.", self._number)
        else:
            self._judge(checked)

    def _judge(self, line: Checked) -> None:
        known = blake2b(line.custom_id.encode(), digest_size=ID_BYTES).digest()
        if not 0 < len(line.custom_id) <= MAX_ID_CHARS:
            text = f"A custom_id has 1 to {MAX_ID_CHARS} characters."
            self._error("invalid_custom_id", text, self._number, "custom_id")
        elif known in self._ids:
            text = "The custom_id stands in an earlier line, too."
            self._error("duplicate_custom_id", text, self._number, "custom_id")
        elif line.method != "POST":
            self._error("invalid_method", "The method is POST.", self._number, "method")
        elif line.url != self.endpoint:
            self._error("invalid_url", f"The url is the batch's endpoint, {self.endpoint}.", self._number, "url")
        elif line.body.stream:
            self._error("invalid_request", "Answers in batches are no streams: leave it out.", self._number, "stream")
        self._ids.add(known)

    def _error(self, code: str, message: str, line: int | None, param: str | None = None) -> None:
        self.errors.append({"code": code, "message": message, "line": line, "param": param})


def whole_lines(piece: bytes, is_end: bool) -> Iterator[tuple[bytes, int]]:
    """The requests of a piece of the input, each with how many bytes of the piece it and what is before it take. The
    last one is whole only where a line break follows, or the input ends."""
    start = _behind_blanks(piece, 0)
    while start < len(piece):
        end = piece.find(b"\n", start)
        if end < 0 and not is_end:
            return
        after = len(piece) if end < 0 else end + 1
        yield piece[start:after].strip(), after
        start = _behind_blanks(piece, after)


def _behind_blanks(piece: bytes, start: int) -> int:
    """In one go: a client may send millions of blank lines."""
    found = BLANK.match(piece, start)
    assert found is not None
    return found.end()


def read(line: bytes) -> tuple[Line, Facts]:
    """Of a line that was checked before. Raises msgspec.MsgspecError when it is another by now."""
    return msgspec.json.decode(line, type=Line), msgspec.json.decode(line, type=Checked).body
