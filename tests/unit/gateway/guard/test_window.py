"""A text in pieces is checked as if it came in one."""

from itertools import pairwise

import pytest
from gateway.core.guard.rules import Checks, Finding, compile_rules, redacted
from gateway.core.guard.window import WINDOW_BYTES, Window
from gateway.core.wire import Guardrail
from hypothesis import given
from hypothesis import strategies as st

RULES = [
    Guardrail("pii", "pii", action="redact"),
    Guardrail("deny", "deny", action="redact", patterns=["project blue moon", "blue", "c++", "größe"]),
    Guardrail("regex", "regex", action="redact", patterns=[r"\bab*c", r"x(?:yz)+", r"(?i)order[ -]\d{2,5}"]),
]
CHECKS, _ = compile_rules(RULES, "output")
WORDS = st.sampled_from([
    "joe@example.com", "joe@", "4111 1111 1111 1111", "4111", "DE89 3704 0044 0532 0130 00", "10.0.0.1", "::1", "blue",
    "Project  Blue\nmoon", "blueish", "C++", "Größe", "abbbc", "xab", "xyzyz", "Order 12", "order-123456",
    "é", "sk-", "a" * 30,
    "123-45-6789", "+41 44 668 18 00", "-----BEGIN PRIVATE KEY-----", "QUJD", "eyJ", ".", "\U0001f600",
])  # fmt: skip
TEXTS = st.lists(st.tuples(WORDS, st.sampled_from(["", " ", " ", "-", "_"])), max_size=8).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)


def whole(text: str) -> tuple[str, list[Finding]]:
    data = text.encode()
    spans = CHECKS.spans(data)
    return redacted(data, spans, 0, len(data)), [span.finding for span in spans]


@given(TEXTS, st.lists(st.integers(0, 300), max_size=8))
def test_the_split_does_not_matter(text: str, cuts: list[int]) -> None:
    window = Window(CHECKS)
    at = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    out = "".join(window.feed(text[a:b]) for a, b in pairwise(at)) + window.flush()
    assert (out, window.found) == whole(text)
    assert not window.waiting
    assert len(out.encode()) <= len(text.encode())


@given(TEXTS)
def test_one_character_at_a_time(text: str) -> None:
    window = Window(CHECKS)
    assert ("".join(map(window.feed, text)) + window.flush(), window.found) == whole(text)


def test_what_cannot_become_a_match_goes_on_at_once() -> None:
    checks, _ = compile_rules([Guardrail("r", "regex", action="redact", patterns=[r"\d{3}-\d{4}"])], "output")
    window = Window(checks)
    assert [window.feed(piece) for piece in ("call ", "55", "5-12", "34 now")] == ["call ", "", "", "******** now"]


def test_a_match_without_end_does_not_wait_for_ever() -> None:
    checks, _ = compile_rules([Guardrail("r", "regex", action="redact", patterns=["ab*"])], "output")
    window = Window(checks)
    given = "".join(window.feed("a" if n == 0 else "b" * 100) for n in range(100))
    assert given.startswith("[redacted:r]")
    assert len(window._data) <= WINDOW_BYTES + 100


def test_overlapping_matches_are_one_with_the_gravest_action() -> None:
    checks = Checks(
        compile_rules([Guardrail("a", "regex", action="redact", patterns=["abc"])], "input")[0].rules
        + compile_rules([Guardrail("b", "regex", action="block", patterns=["cde"])], "input")[0].rules
    )
    [span] = checks.spans(b"xabcdex")
    assert (span.start, span.end, span.label, span.finding) == (1, 6, "a", Finding("b", "block"))


@pytest.mark.parametrize(
    ("guardrail", "reason"),
    [
        (Guardrail("g", "pii", patterns=["shoe size"]), "shoe size"),
        (Guardrail("g", "deny"), "no patterns"),
        (Guardrail("g", "deny", patterns=["  "]), "empty text"),
        (Guardrail("g", "regex", patterns=["(a+"]), "unterminated"),
        (Guardrail("g", "regex", patterns=["a"] * 501), "more than 500"),
    ],
)
def test_guardrails_that_cannot_be_used_are_refused_by_name(guardrail: Guardrail, reason: str) -> None:
    with pytest.raises(ValueError, match=f"guardrail g: .*{reason}"):
        compile_rules([guardrail], "input")


def test_long_deny_lists_are_fine() -> None:
    words = [f"word{number}xyz" for number in range(500)]
    checks, _ = compile_rules([Guardrail("g", "deny", patterns=words)], "input")
    assert [span.label for span in checks.spans(b"no WORD499xyz here, nor word500xyz")] == ["g"]
