"""Heads that are recognised without being parsed: the same bytes, the length's digits apart."""

import httptools
import pytest
from gateway.repeated_head import RepeatedHead, RepeatedHeads
from hypothesis import example, given
from hypothesis import strategies as st

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nX-A: b\r\n\r\n"


def message(body: bytes) -> bytes:
    return HEAD % len(body) + body


def learnt(body: bytes = b"{}") -> RepeatedHead[str]:
    found = RepeatedHeads[str]().learn(message(body), body, "meaning")
    assert found is not None
    return found


@given(st.binary(max_size=2_000))
def test_another_body_of_any_length_is_found(body: bytes) -> None:
    assert learnt().body_of(message(body)) == body


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 98, 99, 100, 999, 1_000, 99_999, 100_000])
def test_lengths_around_another_digit(size: int) -> None:
    head = learnt()
    assert head.body_of(message(b"a" * size)) == b"a" * size
    assert head.body_of(message(b"a" * size) + b"a") is None


@pytest.mark.parametrize(
    "data",
    [
        message(b"{}") + b"P",
        message(b"{}")[:-1],
        message(b"{}") * 2,
        message(b"{}").replace(b"Host: x", b"Host: y"),
        message(b"{}").replace(b"X-A: b", b"X-A: c"),
        message(b"{}").replace(b"Length: 2", b"Length: +2"),
        message(b"{}").replace(b"Length: 2", b"Length: 2 "),
        message(b"{}").replace(b"Length: 2", b"Length: "),
        message(b"{}").replace(b"Length: 2", b"Length: 0000000002"),
        message(b"{}").replace(b"Length: 2", b"Length: \xb2"),
        message(b"{}").replace(b"Length: 2", b"Length: "),
        message(b"1234567890").replace(b"Length: 10", b"Length: ")[:-1],
        message(b"1234567").replace(b"Length: 7", b"Length: none"),
        message(b"{}").replace(b"Length: 2", b"Length: 2\r\nTransfer-Encoding: chunked"),
        b"",
    ],
)
def test_everything_else_is_left_to_the_parser(data: bytes) -> None:
    assert learnt().body_of(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nX: y\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n{}",
        message(b"{}") + message(b"{}"),
        b"POST / HTTP/1.1\r\nX: %b\r\nContent-Length: 2\r\n\r\n{}" % (b"x" * 3_000),
    ],
)
def test_what_is_not_certain_is_not_learnt(data: bytes) -> None:
    assert RepeatedHeads[str]().learn(data, b"{}", "meaning") is None


def test_what_connections_have_in_common_is_kept_once_and_memory_is_bounded() -> None:
    heads = RepeatedHeads[int]()
    first = heads.learn(message(b"{}"), b"{}", 1)
    assert heads.learn(message(b"[1]"), b"[1]", 2) is first
    for number in range(5_000):
        data = b"POST /%d HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}" % number
        assert heads.learn(data, b"{}", number) is not None
    assert len(heads._known) <= 1_024


class Bodies:
    """What a whole parser finds."""

    def __init__(self) -> None:
        self.found: list[bytes] = []
        self._parts: list[bytes] = []

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        self.found.append(b"".join(self._parts))
        self._parts.clear()


@given(st.binary(max_size=80), st.integers(0, 90), st.binary(max_size=8))
@example(b"{}", 50, b"3")
def test_what_is_recognised_is_what_the_parser_would_find(body: bytes, at: int, change: bytes) -> None:
    data = message(body)
    data = data[:at] + change + data[at + len(change) :]
    found = learnt().body_of(data)
    if found is not None:
        bodies = Bodies()
        httptools.HttpRequestParser(bodies).feed_data(data)
        assert bodies.found == [found]
