"""Patterns on RE2, which takes time linear in the text whatever the pattern: patterns and texts are both untrusted.

A text that comes in pieces raises a second question: from where on could it still *become* a match? RE2 cannot be
asked that, so the answer is a second pattern, derived from the first: its prefix closure, anchored at the end. Both are
written from the syntax tree of Python's own parser, so that they cannot disagree about what a pattern means.
"""

import re
from collections.abc import Callable, Iterable
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import re2

# Instructions: RE2's worst time is this times the length of the text.
MAX_PROGRAM_SIZE = 4_000
MAX_WORDS_SIZE = 40_000  # a list of words never needs that worst time
MAX_TAIL_SIZE = 200_000  # of all patterns together; runs over one window of text only
Node = tuple[Any, Any]
Match = tuple[int, int]

CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d", op.CATEGORY_NOT_DIGIT: r"\D", op.CATEGORY_SPACE: r"\s", op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w", op.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip
ANCHORS = {op.AT_BOUNDARY: r"\b", op.AT_NON_BOUNDARY: r"\B"}
FLAGS = ((re.IGNORECASE, "i"), (re.DOTALL, "s"))


class BadPattern(ValueError):
    """The pattern is not one that the gateway can promise to run in linear time, or to follow through a stream."""


class Pattern:
    """A compiled pattern over UTF-8. Offsets are bytes."""

    __slots__ = ("_first", "exact", "source", "tail")

    def __init__(self, source: str, largest: int = MAX_PROGRAM_SIZE) -> None:
        """Python's syntax without look-around, back-references and anchors. Raises BadPattern."""
        tree, flags = _parse(source)
        self.source = source
        self.exact = flags + _exact(tree)
        self._first = _compile(self.exact, largest)
        self.tail = flags + _prefix(tree)
        if self._first.search(b"") is not None:
            raise BadPattern(f"{source[:80]!r} matches the empty text")

    def first(self, data: bytes, start: int) -> Match | None:
        """The leftmost match that begins at ``start`` or later."""
        found = self._first.search(data, start)
        return None if found is None else found.span()


class Union:
    """Whether any of several patterns matches at all: one search instead of many for texts without a match."""

    __slots__ = ("_pattern",)

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        union = "|".join(f"(?:{pattern.exact})" for pattern in patterns)
        self._pattern = _compile(union, MAX_TAIL_SIZE) if union else None

    def matches(self, data: bytes, start: int) -> bool:
        return self._pattern is not None and self._pattern.search(data, start) is not None


class Tail:
    """Of several patterns: where the part of a text begins that could still become a match of any of them."""

    __slots__ = ("_pattern",)

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        closures = "|".join(f"(?:{pattern.tail})" for pattern in patterns)
        self._pattern = _compile(rf"(?:{closures})\z", MAX_TAIL_SIZE) if closures else None

    def start(self, data: bytes, since: int = 0) -> int:
        """Offset in bytes, ``since`` or later; the length of the text when nothing has to wait."""
        found = self._pattern.search(data, since) if self._pattern is not None else None
        return len(data) if found is None else int(found.start())


def _parse(source: str) -> tuple[list[Node], str]:
    try:
        tree = _parser.parse(source)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadPattern(f"{source[:80]!r}: {error}") from None
    named = "".join(letter for flag, letter in FLAGS if tree.state.flags & flag)
    return list(tree), f"(?{named})" if named else ""


def _compile(source: str, largest: int) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(source, options)
    except re2.error as error:
        raise BadPattern(f"the pattern is too large or not understood: {_reason(error)}") from None
    if compiled.programsize > largest:
        raise BadPattern(f"the pattern is too large: {compiled.programsize} steps, at most {largest}")
    return compiled


def _reason(error: Exception) -> str:
    reason = error.args[0]
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)


# --- the pattern itself -------------------------------------------------------------------------------------------


def _exact(nodes: Iterable[Node]) -> str:
    return "".join(_one(kind, value) for kind, value in nodes)


def _one(kind: Any, value: Any) -> str:
    write = EXACT.get(kind)
    if write is None:
        raise BadPattern(f"{str(kind).lower()} is not supported: no look-around, back-reference or possessive repeat")
    return write(value)


def _literal(code: int) -> str:
    if 0xD800 <= code < 0xE000:
        raise BadPattern("half of a surrogate pair is not a character")
    return f"\\x{{{code:x}}}"


def _set(items: list[Node]) -> str:
    parts = [_member(kind, value) for kind, value in items]
    return f"[{''.join(parts)}]"


def _member(kind: Any, value: Any) -> str:
    if kind is op.NEGATE:
        return "^"
    if kind is op.RANGE:
        return f"{_literal(value[0])}-{_literal(value[1])}"
    return CATEGORIES[value] if kind is op.CATEGORY else _literal(value)


def _branch(value: tuple[None, list[list[Node]]]) -> str:
    return f"(?:{'|'.join(_exact(branch) for branch in value[1])})"


def _group(value: tuple[int | None, int, int, list[Node]]) -> str:
    return f"(?{_group_flags(value)}:{_exact(value[3])})"


def _group_flags(value: tuple[int | None, int, int, list[Node]]) -> str:
    added, removed = ("".join(letter for flag, letter in FLAGS if given & flag) for given in value[1:3])
    return f"{added}-{removed}" if removed else added


def _repeat(value: tuple[int, int, list[Node]]) -> str:
    low, high, nodes = value
    count = f"{low}," if high is op.MAXREPEAT else f"{low},{high}"
    return f"(?:{_exact(nodes)}){{{count}}}"


def _anchor(kind: Any) -> str:
    if kind not in ANCHORS:
        raise BadPattern(r"anchors (^ $ \A \Z) are not supported, because texts come in pieces; use \b")
    return ANCHORS[kind]


EXACT: dict[Any, Callable[[Any], str]] = {
    op.LITERAL: _literal,
    op.NOT_LITERAL: lambda code: f"[^{_literal(code)}]",
    op.ANY: lambda _: ".",
    op.IN: _set,
    op.BRANCH: _branch,
    op.SUBPATTERN: _group,
    op.MAX_REPEAT: _repeat,
    op.MIN_REPEAT: lambda value: _repeat(value) + "?",
    op.AT: _anchor,
}


# --- its prefix closure -------------------------------------------------------------------------------------------


def _prefix(nodes: list[Node]) -> str:
    """A pattern of everything that matches of ``nodes`` begin with; the empty text is among it."""
    closure = ""
    for kind, value in reversed(nodes):
        inner = PREFIX[kind](value) if kind in PREFIX else ""
        closure = f"(?:{inner}|{_one(kind, value)}{closure})"
    return closure


def _prefix_of_repeat(value: tuple[int, int, list[Node]]) -> str:
    _, high, nodes = value
    count = "*" if high is op.MAXREPEAT else f"{{0,{max(high - 1, 0)}}}"
    return f"(?:{_exact(nodes)}){count}{_prefix(nodes)}"


PREFIX: dict[Any, Callable[[Any], str]] = {
    op.BRANCH: lambda value: f"(?:{'|'.join(_prefix(branch) for branch in value[1])})",
    op.SUBPATTERN: lambda value: f"(?{_group_flags(value)}:{_prefix(value[3])})",
    op.MAX_REPEAT: _prefix_of_repeat,
    op.MIN_REPEAT: _prefix_of_repeat,
}
