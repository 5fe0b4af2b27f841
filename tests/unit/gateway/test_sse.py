"""Server-sent events out of pieces of bytes."""

from itertools import pairwise

import pytest
from gateway.core import sse
from hypothesis import given
from hypothesis import strategies as st

STREAM = b'data: {"a":1}\n\n: comment\n\nevent: x\r\ndata: two\r\ndata: lines\r\n\r\ndata:[DONE]\n\ndata: rest'


@given(st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_events_come_out_byte_for_byte_however_they_are_cut(cuts: list[int]) -> None:
    reader = sse.EventReader()
    at = sorted({0, len(STREAM), *cuts})
    events = [event for a, b in pairwise(at) for event in reader.feed(STREAM[a:b])]
    assert b"".join(events) + reader.rest() == STREAM
    assert [sse.payload(event) for event in events] == [b'{"a":1}', None, b"two\nlines", sse.DONE]


def test_other_lines_of_an_event_stay() -> None:
    assert sse.with_payload(b"id: 7\nevent: x\ndata: old\ndata: older\n\n", b"new") == b"id: 7\nevent: x\ndata: new\n\n"


def test_an_event_without_end_is_refused() -> None:
    reader = sse.EventReader()
    with pytest.raises(sse.EventTooLong):
        for _ in range(sse.MAX_EVENT_BYTES // 65536 + 2):
            reader.feed(b"x" * 65536)
