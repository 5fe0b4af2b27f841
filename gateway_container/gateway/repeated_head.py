"""Heads that come again: peers repeat theirs byte for byte, but for the length of the body."""

import re
from typing import Final, Generic, TypeVar

LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,9})\r\n")
MAX_DIGITS: Final = 9
MAX_HEAD_BYTES: Final = 2048
REMEMBERED: Final = 1024
LESSONS: Final = 8  # so often in a row a connection learns in vain: then its heads differ each time
Meaning = TypeVar("Meaning")


class RepeatedHead(Generic[Meaning]):
    """A head that was parsed before, and what it means: the bytes before the digits of its length, and those after.

    Equal bytes mean the same, so that only the digits are left to check: those that the size of a segment demands.
    """

    __slots__ = ("_head", "_rest", "after", "before", "meaning")

    def __init__(self, before: bytes, after: bytes, meaning: Meaning) -> None:
        self.before = before
        self.after = after
        self.meaning = meaning
        self._rest = -1  # digits and body together, of the last message, and its head
        self._head = b""

    def body_of(self, data: bytes) -> bytes | None:
        """The body, if ``data`` is exactly one message with this head. None: it has to be parsed."""
        rest = len(data) - len(self.before) - len(self.after)
        if rest != self._rest:
            digits = _digits(rest)
            self._rest = rest
            self._head = self.before + digits + self.after if digits else b""
        head = self._head
        return data[len(head) :] if head and data.startswith(head) else None


def _digits(rest: int) -> bytes:
    """The number of bytes that follow it, where both together are ``rest`` bytes. Empty: there is none."""
    for width in range(1, MAX_DIGITS):
        digits = b"%d" % max(rest - width, 0)
        if len(digits) + int(digits) == rest:
            return digits
    return b""


class RepeatedHeads(Generic[Meaning]):
    """Those of all connections: what they have in common is kept once."""

    def __init__(self) -> None:
        self._known: dict[bytes, RepeatedHead[Meaning]] = {}

    def learn(self, data: bytes, body: bytes, meaning: Meaning) -> RepeatedHead[Meaning] | None:
        """The head of ``data``, which a parser read as one message with ``body``. None: that is not quite certain, or
        not worth remembering."""
        end = len(data) - len(body)
        if end > MAX_HEAD_BYTES or data.find(b"\r\n\r\n") != end - 4 or not data.endswith(body):
            return None
        found = LENGTH.search(data, 0, end)
        if found is None or int(found[1]) != len(body):
            return None
        before, after = data[: found.start(1)], data[found.end(1) : end]
        if b"content-length" in after.lower():
            return None
        known = self._known.get(before + after)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known[before + after] = RepeatedHead(before, after, meaning)
        return known
