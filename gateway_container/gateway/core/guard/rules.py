"""Guardrails of an endpoint, compiled: what is searched for, and what happens when it is found."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.core.guard.patterns import MAX_WORDS_SIZE, BadPattern, Pattern, Tail, Union
from gateway.core.guard.pii import KINDS, Detector, anywhere, detector, whole_words
from gateway.core.wire import Action, Direction, Guardrail

LOCAL_KINDS = frozenset({"pii", "deny", "regex"})
MAX_PATTERNS = 500
_ORDER: tuple[Action, ...] = ("observe", "redact", "block")


class Finding(NamedTuple):
    rule_id: str
    action: Action


class Span(NamedTuple):
    """A part of a text, in bytes of UTF-8, that a rule has something to say about."""

    start: int
    end: int
    label: str
    finding: Finding


class Rule:
    """One guardrail with patterns. Raises ValueError for patterns that cannot be used."""

    __slots__ = ("detectors", "finding")

    def __init__(self, guardrail: Guardrail) -> None:
        self.finding = Finding(guardrail.id, guardrail.action)
        if len(guardrail.patterns) > MAX_PATTERNS:
            raise ValueError(f"guardrail {guardrail.id}: more than {MAX_PATTERNS} patterns")
        try:
            self.detectors = _detectors(guardrail)
        except BadPattern as error:
            raise ValueError(f"guardrail {guardrail.id}: {error}") from None

    def spans(self, data: bytes, start: int) -> Iterable[Span]:
        for one in self.detectors:
            for begin, end in one.spans(data, start):
                yield Span(begin, end, one.label, self.finding)


def _detectors(guardrail: Guardrail) -> list[Detector]:
    kind, patterns = guardrail.kind, guardrail.patterns
    if kind == "pii":
        unknown = set(patterns) - set(KINDS)
        if unknown:
            raise BadPattern(f"there is no kind {min(unknown)!r} of personal data, only {', '.join(sorted(KINDS))}")
        return [detector(name) for name in patterns or KINDS]
    if not patterns:
        raise BadPattern("no patterns")
    if kind == "regex":
        return [Detector(guardrail.id, Pattern(pattern), anywhere) for pattern in patterns]
    return [Detector(guardrail.id, _words(patterns), whole_words)]


def _words(words: Sequence[str]) -> Pattern:
    """Deny lists ignore case and take any white space for a space. Longer words win over what they begin with."""
    longest_first = sorted((word.split() for word in words if word.strip()), key=lambda parts: -len(" ".join(parts)))
    alternatives = [r"\s+".join(_escaped(part) for part in parts) for parts in longest_first]
    return Pattern(f"(?i)(?:{'|'.join(alternatives)})", MAX_WORDS_SIZE)


def _escaped(text: str) -> str:
    return "".join(char if char.isalnum() else f"\\x{ord(char):02x}" if ord(char) < 256 else char for char in text)


class Checks:
    """The rules of one direction with the same effect: those that act (block, redact), or those that observe."""

    __slots__ = ("_union", "rules", "tail")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        patterns = [one.pattern for rule in self.rules for one in rule.detectors]
        self.tail = Tail(patterns)
        self._union = Union(patterns)

    def __bool__(self) -> bool:
        return bool(self.rules)

    def spans(self, data: bytes, start: int = 0) -> list[Span]:
        """What is found from ``start`` on, in order; what overlaps is one span with the gravest action of its parts."""
        if not self._union.matches(data, start):
            return []
        found = sorted(span for rule in self.rules for span in rule.spans(data, start))
        merged: list[Span] = []
        for span in found:
            if merged and span.start < merged[-1].end:
                merged[-1] = _union(merged[-1], span)
            else:
                merged.append(span)
        return merged

    def redact(self, text: str) -> tuple[str, list[Finding]]:
        """A whole text with what was found taken out."""
        data = text.encode()
        spans = self.spans(data)
        return redacted(data, spans, 0, len(data)) if spans else text, [span.finding for span in spans]


def _union(first: Span, second: Span) -> Span:
    gravest = max(first.finding, second.finding, key=lambda finding: _ORDER.index(finding.action))
    return Span(first.start, max(first.end, second.end), first.label, gravest)


def redacted(data: bytes, spans: Iterable[Span], start: int, end: int) -> str:
    """The text between two offsets with the spans taken out."""
    parts, at = [], start
    for span in spans:
        parts += [data[at : span.start], _substitute(span)]
        at = span.end
    return b"".join([*parts, data[at:end]]).decode()


def _substitute(span: Span) -> bytes:
    """Never longer than what it replaces: the request's budget was held for the text as it came."""
    label, size = b"[redacted:%b]" % span.label.encode(), span.end - span.start
    return label if len(label) <= size else b"*" * size


def compile_rules(guardrails: Iterable[Guardrail], direction: Direction) -> tuple[Checks, Checks]:
    """Rules with patterns for one direction: those that act, and those that observe. Raises ValueError."""
    rules = [Rule(g) for g in guardrails if g.kind in LOCAL_KINDS and direction in g.on]
    acting = [rule for rule in rules if rule.finding.action != "observe"]
    return Checks(acting), Checks(rule for rule in rules if rule.finding.action == "observe")
