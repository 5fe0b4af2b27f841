"""A text in pieces, checked as if it came in one: what could still become a match waits, the rest goes on."""

from gateway.core.guard.rules import Checks, Finding, redacted

# A match that is longer than this is found in whole texts only.
WINDOW_BYTES = 4096
MAX_CHAR_BYTES = 4


class Window:
    """``feed`` pieces, ``flush`` at the end; ``found`` collects what the rules found in what was given out."""

    __slots__ = ("_checks", "_data", "_start", "found")

    def __init__(self, checks: Checks) -> None:
        self.found: list[Finding] = []
        self._checks = checks
        self._data = b""
        self._start = 0  # before it: one character that has been given out, for the rules that look at the one before

    @property
    def waiting(self) -> bool:
        return self._start < len(self._data)

    def feed(self, text: str) -> str:
        """What may go on, redacted."""
        if not self._checks:
            return text
        data = self._data = self._data + text.encode()
        settled = self._checks.tail.start(data, self._start)
        full = _char_start(data, len(data) - WINDOW_BYTES)
        return self._give_out(max(settled, full), full > settled)

    def flush(self) -> str:
        """The rest, redacted: nothing follows that could complete a match."""
        return self._give_out(len(self._data), False)

    def _give_out(self, end: int, full: bool) -> str:
        data, start = self._data, self._start
        spans = self._checks.spans(data, start)
        for span in spans:
            if span.start < end < span.end:  # it overlaps one that may still grow: all of it waits, if there is room
                end = span.end if full else span.start
        settled = [span for span in spans if span.end <= end]
        self.found += [span.finding for span in settled]
        given = redacted(data, settled, start, end)
        kept = _char_start(data, end - 1)
        self._data, self._start = data[kept:], end - kept
        return given


def _char_start(data: bytes, at: int) -> int:
    """``at``, or where the character begins that it is inside of."""
    while at > 0 and at < len(data) and data[at] & 0xC0 == 0x80:
        at -= 1
    return max(at, 0)
