"""An event stream through the rules: wherever it is cut, the client reads the same redacted text."""

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from gateway.core import sse
from gateway.core.guard.rules import Checks, compile_rules
from gateway.core.guard.stream import StreamGuard, Unreadable
from gateway.core.wire import Guardrail
from hypothesis import given
from hypothesis import strategies as st

CHECKS, NONE = compile_rules(
    [
        Guardrail("pii", "pii", action="redact", patterns=["email", "credit_card"]),
        Guardrail("deny", "deny", action="redact", patterns=["blue moon"]),
    ],
    "output",
)
TEXT = "Write to joe@example.com about the Blue  Moon, card 4111 1111 1111 1111, éà joe@"


def through(path: str, documents: list[Any], checks: Checks = CHECKS) -> list[Any]:
    """What comes out for these events, decoded; strings stay as they are."""
    guard = StreamGuard(path, checks, NONE)
    events = [b"data: " + (d if isinstance(d, str) else json.dumps(d)).encode() + b"\n\n" for d in documents]
    out = [one for event in events for one in guard.event(event)] + guard.end()
    payloads = [(sse.payload(event) or b"").decode() for event in out]
    return [json.loads(data) if data.startswith("{") else data for data in payloads]


def cut(text: str, cuts: list[int]) -> list[str]:
    at = sorted({0, len(text), *(c % len(text) for c in cuts)})
    return [text[a:b] for a, b in pairwise(at)]


def chat(content: str | None, index: int = 0, finish: str | None = None, field: str = "content") -> dict[str, Any]:
    delta = {field: content} if content is not None else {}
    return {"id": "c1", "choices": [{"index": index, "delta": delta, "finish_reason": finish}], "vendor": {"x": 1.5}}


def said(documents: list[Any], field: str = "content") -> dict[int, str]:
    texts: dict[int, str] = defaultdict(str)
    for document in documents:
        for choice in document["choices"] if isinstance(document, dict) else ():
            texts[choice["index"]] += choice["delta"].get(field) or ""
    return texts


@given(st.lists(st.integers(0, 1000), max_size=12))
def test_the_chunking_does_not_matter(cuts: list[int]) -> None:
    out = through("/v1/chat/completions", [*map(chat, cut(TEXT, cuts)), chat(None, finish="stop"), "[DONE]"])
    assert said(out)[0] == CHECKS.redact(TEXT)[0]
    assert out[-1] == "[DONE]" and out[-2]["choices"][0]["finish_reason"] == "stop"
    assert all(document["vendor"] == {"x": 1.5} for document in out[:-1])


@given(st.lists(st.integers(0, 1000), max_size=9), st.lists(st.integers(0, 1000), max_size=9), st.randoms())
def test_choices_that_take_turns_do_not_mix(first: list[int], second: list[int], random: Any) -> None:
    queues = [list(cut(TEXT, first)), list(cut(TEXT[::-1], second))]
    documents = []
    while any(queues):
        index = random.choice([n for n, queue in enumerate(queues) if queue])
        documents.append(chat(queues[index].pop(0), index))
    out = through("/v1/chat/completions", [*documents, chat(None, 0, "stop"), chat(None, 1, "length"), "[DONE]"])
    assert said(out) == {0: CHECKS.redact(TEXT)[0], 1: CHECKS.redact(TEXT[::-1])[0]}


def test_a_text_that_ends_is_complete_before_its_end_is_told() -> None:
    out = through("/v1/chat/completions", [chat("write joe@exam"), chat("ple.com"), chat(None, finish="stop")])
    assert out[-1]["choices"][0]["finish_reason"] == "stop"
    assert said(out[:-1])[0] == "write " + "*" * 15


def test_the_rest_comes_with_the_last_piece_when_that_says_so() -> None:
    out = through("/v1/chat/completions", [chat("joe@exam"), chat("ple.com", finish="stop")])
    assert [document["choices"][0]["delta"]["content"] for document in out] == ["", "*" * 15]


def test_thoughts_end_where_the_answer_begins() -> None:
    documents = [chat("joe@example.com", field="reasoning_content"), chat("", field="content"), chat("hello ")]
    out = through("/v1/chat/completions", [*documents, chat(None, finish="stop")])
    fields = [next(iter(d["choices"][0]["delta"].items()), None) for d in out]
    assert fields.index(("reasoning_content", "*" * 15)) < fields.index(("content", "hello "))


def test_what_cannot_become_a_match_is_not_delayed_and_not_touched() -> None:
    checks, _ = compile_rules([Guardrail("n", "regex", action="redact", patterns=[r"\d{4}"])], "output")
    guard = StreamGuard("/v1/chat/completions", checks, NONE)
    event = b'event: x\ndata:  {"choices": [{"index":0,"delta":{"content":"hi "}}], "n":1.50}\n\n'
    assert guard.event(event) == [event]
    assert guard.event(b": ping\n\n") == [b": ping\n\n"]


def test_tokens_do_not_tell_what_the_text_hides() -> None:
    document = chat("joe@example.com ")
    document["choices"][0]["logprobs"] = {"content": [{"token": "joe"}]}
    [out, *_] = through("/v1/chat/completions", [document])
    assert out["choices"][0]["logprobs"] is None


@given(st.lists(st.integers(0, 1000), max_size=9))
def test_tool_calls_are_checked_one_by_one(cuts: list[int]) -> None:
    def call(arguments: str, index: int) -> dict[str, Any]:
        return {
            "choices": [{"index": 0, "delta": {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}}]
        }

    pieces = cut('{"to":"joe@example.com"}', cuts)
    documents = [call(piece, index) for index in (0, 1) for piece in pieces]
    texts: dict[int, str] = defaultdict(str)
    for document in through("/v1/chat/completions", [*documents, chat(None, finish="tool_calls"), "[DONE]"]):
        if isinstance(document, dict):
            for one in document["choices"][0]["delta"].get("tool_calls", ()):
                texts[one["index"]] += one["function"]["arguments"]
    assert texts == {0: '{"to":"***************"}', 1: '{"to":"***************"}'}


@given(st.lists(st.integers(0, 1000), max_size=9))
def test_messages_of_anthropic(cuts: list[int]) -> None:
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        for piece in cut(TEXT, cuts)
    ]
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    stop = {"type": "content_block_stop", "index": 0}
    out = through("/v1/messages", [start, *deltas, {"type": "ping"}, stop, {"type": "message_stop"}])
    assert "".join(d["delta"]["text"] for d in out if d["type"] == "content_block_delta") == CHECKS.redact(TEXT)[0]
    assert [d["type"] for d in out if d["type"] != "content_block_delta"] == [
        "content_block_start", "ping", "content_block_stop", "message_stop",
    ]  # fmt: skip
    assert out[-2] == stop


@given(st.lists(st.integers(0, 1000), max_size=9))
def test_responses_say_the_same_in_pieces_and_at_the_end(cuts: list[int]) -> None:
    where = {"output_index": 0, "content_index": 0}
    deltas = [{"type": "response.output_text.delta", **where, "delta": piece} for piece in cut(TEXT, cuts)]
    whole = {"type": "message", "content": [{"type": "output_text", "text": TEXT}]}
    out = through("/v1/responses", [
        {"type": "response.created", "response": {"id": "r", "output": []}}, *deltas,
        {"type": "response.output_text.done", **where, "text": TEXT},
        {"type": "response.completed", "response": {"id": "r", "output": [whole]}},
    ])  # fmt: skip
    expected = CHECKS.redact(TEXT)[0]
    assert "".join(d["delta"] for d in out if d["type"].endswith(".delta")) == expected
    assert out[-2]["text"] == out[-1]["response"]["output"][0]["content"][0]["text"] == expected


def test_findings_are_counted_once() -> None:
    guard = StreamGuard("/v1/chat/completions", CHECKS, CHECKS)
    for piece in ("joe@exam", "ple.com and", " blue moon"):
        guard.event(b"data: " + json.dumps(chat(piece)).encode() + b"\n\n")
    guard.end()
    assert sorted(finding.rule_id for finding in guard.found) == ["deny", "deny", "pii", "pii"]


@pytest.mark.parametrize("payload", ["[1]", "no json", '"text"', '{"a":1e999}'])
def test_what_cannot_be_read_does_not_pass(payload: str) -> None:
    with pytest.raises(Unreadable):
        through("/v1/chat/completions", [payload])


@given(st.binary(max_size=200))
def test_bytes_without_sense_are_refused_or_pass_as_they_are(data: bytes) -> None:
    guard = StreamGuard("/v1/chat/completions", CHECKS, NONE)
    event = b"data: " + data.replace(b"\n", b"").replace(b"\r", b"") + b"\n\n"
    try:
        passed = guard.event(event)
    except Unreadable:
        return
    assert b"".join(passed) == event or isinstance(json.loads(sse.payload(event) or b""), dict)
