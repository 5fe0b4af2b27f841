"""Patterns, and where a text begins that could still become a match."""

import re

import pytest
from gateway.core.guard.patterns import BadPattern, Pattern, Tail
from hypothesis import given
from hypothesis import strategies as st

SOURCES = [
    r"ab+c", r"a{2,3}b", r"(?:ab|ac)d", r"a(?:b|c(?:d|e))*f", r"[a-c]{2}d", r"[^a]b", r"a.c", r"(?i)aB", r"a\d?b",
    r"\bab\b", r"a(?:bc)+?d", r"(a)(b)c", r"(?s:a.b)", r"ä+b",
]  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
@given(text=st.text(alphabet="abcdefAB 1\nä", max_size=12))
def test_a_pattern_means_what_python_says(source: str, text: str) -> None:
    expected = re.search(source, text, re.ASCII)
    found = Pattern(source).first(text.encode(), 0)
    offsets = None if expected is None else tuple(len(text[:at].encode()) for at in expected.span())
    assert found == offsets


@pytest.mark.parametrize("source", SOURCES)
@given(text=st.text(alphabet="abcdefA 1ä", max_size=10), more=st.text(alphabet="abcdefA 1ä", max_size=6))
def test_a_match_that_goes_on_in_the_next_piece_begins_in_the_tail(source: str, text: str, more: str) -> None:
    pattern = Pattern(source)
    tail = Tail([pattern]).start(text.encode())
    size = len(text.encode())
    match = pattern.first((text + more).encode(), 0)
    while match is not None:
        if match[0] < size < match[1]:
            assert tail <= match[0]
        match = pattern.first((text + more).encode(), match[1])


@pytest.mark.parametrize(
    ("text", "waits"), [("call 555", "555"), ("call 555-", "555-"), ("555-12345", "345"), ("call 55x", ""), ("", "")]
)
def test_no_more_waits_than_could_become_a_match(text: str, waits: str) -> None:
    tail = Tail([Pattern(r"\d{3}-\d{4}")])
    assert text.encode()[tail.start(text.encode()) :].decode() == waits


def test_without_patterns_nothing_waits() -> None:
    assert Tail([]).start(b"abc") == 3


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (r"a+$", "anchors"), (r"^a", "anchors"), (r"(?=x)y", "assert"), (r"(?<!x)y", "assert_not"),
        (r"(a)\1", "groupref"), (r"a*", "empty text"), (r"[", "unterminated"), (r"a{1,2000}", "too large"),
        (r"(?:(?:a{1,99}){1,99}){1,99}", "too large"), (r"\w{1,1000}\w{1,1000}\w{1,1000}", "too large"),
        ("\ud800", "surrogate"), (r"a++", "possessive"), ("(" * 5000 + ")" * 5000, "recursion"),
    ],
)  # fmt: skip
def test_patterns_that_cannot_be_promised_are_refused_with_a_reason(source: str, reason: str) -> None:
    with pytest.raises(BadPattern, match=reason):
        Pattern(source)
