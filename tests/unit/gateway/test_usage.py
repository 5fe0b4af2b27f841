"""Usage is found in every dialect and whatever the chunking, and the stream stays what it was."""

import json
from itertools import pairwise
from typing import Any

import pytest
from gateway.core.usage import BodyReader, StreamReader, Usage, of_body
from hypothesis import given
from hypothesis import strategies as st

TEXT = b'data: {"choices":[{"delta":{"content":"h\xc3\xa9 \\"usage\\""}}]}\n\n'
DETAILS = b'"prompt_tokens_details":{"cached_tokens":4}'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,' + DETAILS + b"}}\n\n"
DONE = b"data: [DONE]\n\n"


def read(data: bytes, cuts: list[int], hide: bool) -> tuple[bytes, Usage | None]:
    reader, out = StreamReader(hide), b""
    marks = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(marks):
        out += reader.feed(data[start:end])
    return out + reader.rest(), reader.usage


@given(st.lists(st.integers(0, 2000), max_size=12), st.integers(0, 4), st.booleans())
def test_the_usage_event_is_read_and_only_taken_out_when_it_is_ours(cuts: list[int], texts: int, hide: bool) -> None:
    out, usage = read(TEXT * texts + USAGE + DONE, cuts, hide)
    assert usage == Usage(7, 2, 4)
    assert out == TEXT * texts + (b"" if hide else USAGE) + DONE


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_any_bytes_pass_unchanged(data: bytes, cuts: list[int]) -> None:
    assert read(data, cuts, hide=False)[0] == data
    if b'"usage"' not in data:
        assert read(data, cuts, hide=True)[0] == data


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (
            [
                {"type": "message_start", "message": {"usage": {"input_tokens": 9, "cache_read_input_tokens": 5}}},
                {"type": "message_delta", "usage": {"output_tokens": 3}},
            ],
            Usage(14, 3, 5),
        ),
        ([{"type": "response.completed", "response": {"usage": {"input_tokens": 9, "output_tokens": 3}}}], Usage(9, 3)),
    ],
)
def test_other_dialects(events: list[dict[str, Any]], expected: Usage) -> None:
    data = b"".join(b"event: x\ndata: " + json.dumps(event).encode() + b"\n\n" for event in events)
    assert read(data, [], hide=True) == (data, expected)


@pytest.mark.parametrize(
    "usage",
    ['"usage" : {"prompt_tokens":7,"completion_tokens":2}', '"usage":\t{"prompt_tokens":7.0,"completion_tokens":2}'],
)
def test_odd_usage_events_are_read_and_taken_out(usage: str) -> None:
    event = b'data: {"choices":[],' + usage.encode() + b"}\n\n"
    assert read(TEXT + event + DONE, [], hide=True) == (TEXT + DONE, Usage(7, 2))


def test_chunks_that_say_there_is_no_usage_pass_as_they_are() -> None:
    chunk = TEXT[:-3] + b',"usage":null}\n\n'
    assert StreamReader(True).feed(chunk) is chunk


def test_of_a_long_answer_the_end_is_read() -> None:
    reader = BodyReader()
    for _ in range(70):
        reader.feed(b'{"logprobs":' + b" " * (1 << 20))
    reader.feed(b'"x","usage":{"prompt_tokens":5,"completion_tokens":6},"id":"a"}')
    assert reader.usage() == Usage(5, 6)
    assert reader.kept_bytes < 40 << 20 and reader.size > 70 << 20


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 4}}, Usage(3, 4)),
        ({"usage": {"prompt_tokens": 3, "total_tokens": 3}}, Usage(3, 0)),
        (
            {"usage": {"input_tokens": 3, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 2}}},
            Usage(3, 4, 2),
        ),
        ({"usage": {"total_tokens": 8}}, Usage(8, 0)),
        ({"usage": {"prompt_tokens": 10**15, "completion_tokens": 4}}, Usage(2**31 - 1, 4)),
        ({"usage": {"input_tokens": 3, "output_tokens": 10**30}}, Usage(3, 2**31 - 1)),
        ({"usage": {"prompt_tokens": 3.0, "completion_tokens": 4.2}}, Usage(3, 5)),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": "none"}}, Usage(3, 4)),
        ({"usage": {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2.0}}}, Usage(3, 0, 2)),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": "4"}}, Usage(3, 0)),
        ({"usage": {"prompt_tokens": 1e300, "completion_tokens": True}}, Usage(2**31 - 1, 0)),
        ({"usage": None}, None),
        ({"data": []}, None),
        ({"data": [1], "usage": {"prompt_tokens": 3, "completion_tokens": 4}, "id": "x"}, Usage(3, 4)),
        ({"usage": {"prompt_tokens": 3}, "inner": {"usage": {"prompt_tokens": 9}}}, Usage(3, 0)),
        ({"inner": {"usage": {"prompt_tokens": 9}}}, None),
        ({"text": '"usage":{"prompt_tokens":9}}', "usage": {"prompt_tokens": 3}, "more": '{"usage":{}}'}, Usage(3, 0)),
    ],
)
def test_bodies(body: dict[str, Any], expected: Usage | None) -> None:
    for separators in ((",", ":"), (", ", ": "), (" ,\n", " :\t")):
        assert of_body(json.dumps(body, separators=separators).encode()) == expected


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 10_000, b'{"usage":{"prompt_tokens":-3}}', b'{"usage":7}'])
def test_odd_bodies_are_no_usage(body: bytes) -> None:
    assert of_body(body) in (None, Usage())
