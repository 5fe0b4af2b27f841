"""Responses are taken apart strictly, whatever the fragments."""

from itertools import pairwise

import pytest
from gateway.framing import CHUNKED, LENGTH, UNTIL_CLOSE, BadFraming, Dechunker, Head, is_no_head
from hypothesis import given
from hypothesis import strategies as st


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.lists(st.integers(0, 3000), max_size=12))
def test_any_fragmentation_gives_the_same_payload(pieces: list[bytes], cuts: list[int]) -> None:
    data = chunked(pieces)
    marks = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    dechunker, found, passed_raw = Dechunker(), b"", b""
    for start, end in pairwise(marks):
        out = dechunker.feed(data[start:end])
        found += b"".join(out)
        if dechunker.raw:
            passed_raw += data[start:end]
    assert dechunker.done and not dechunker.surplus
    assert found == b"".join(pieces)
    if len(marks) == 2:
        assert passed_raw == data, "a whole body in one segment passes as it is"


@given(st.binary(max_size=200))
def test_any_bytes_are_payload_or_refused(data: bytes) -> None:
    dechunker = Dechunker()
    try:
        pieces = dechunker.feed(data)
    except BadFraming:
        return
    assert sum(map(len, pieces)) <= len(data)


@pytest.mark.parametrize(
    ("head", "framing", "length", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5", LENGTH, 5, True),
        (b"HTTP/1.1 200 OK\r\ncontent-length:5\r\nConnection: close", LENGTH, 5, False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked", CHUNKED, -1, True),
        (b"HTTP/1.1 200 OK", UNTIL_CLOSE, -1, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5", LENGTH, 5, False),
        (b"HTTP/1.1 204", UNTIL_CLOSE, -1, True),
    ],
)
def test_heads(head: bytes, framing: int, length: int, keep_alive: bool) -> None:
    for _ in range(2):  # the second time from memory
        parsed = Head(head)
        assert (parsed.framing, parsed.length, parsed.keep_alive) == (framing, length, keep_alive)


def test_nobody_switches_protocols() -> None:
    with pytest.raises(BadFraming):
        Head(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c")


@given(st.integers(0, 60))
def test_half_a_head_is_told_from_none(length: int) -> None:
    assert not is_no_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: a/b\r\n"[:length])
    assert is_no_head(b"HTTP/1.1 200 OK\n\n") and is_no_head(b"SSH-2") and is_no_head(b"HTTP/1." + b"a" * (1 << 17))


def test_only_listed_headers_pass() -> None:
    head = Head(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nSet-Cookie: a\r\nServer: b\r\nRetry-After: 3")
    assert head.passed == [b"content-type: text/event-stream\r\n", b"retry-after: 3\r\n"]
    assert head.event_stream


@pytest.mark.parametrize("coding", [b"gzip", b"BR", b"identity, zstd", b"x"])
@pytest.mark.parametrize("line", [b"Content-Type: text/event-stream\r\n%b", b"%b\r\nContent-Type: text/event-stream"])
def test_what_is_compressed_is_no_stream_that_can_be_read(line: bytes, coding: bytes) -> None:
    head = Head(b"HTTP/1.1 200 OK\r\n" + line % (b"Content-Encoding: " + coding))
    assert head.encoded and not head.event_stream
    assert b"content-encoding: %b\r\n" % coding in head.passed
    plain = Head(b"HTTP/1.1 200 OK\r\n" + line % b"Content-Encoding: Identity")
    assert plain.event_stream and not plain.encoded
