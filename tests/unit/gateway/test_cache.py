"""The response cache: which requests are the same, what is kept, how much, how long."""

import json
from typing import Any

import pytest
from gateway.core import sse
from gateway.core.cache import WHOLE, Request, ResponseCache, Stored, as_stream, is_complete, request_of
from gateway.core.usage import Usage
from hypothesis import given
from hypothesis import strategies as st

CHAT = "/v1/chat/completions"
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(st.text(max_size=4), JSON_VALUES, max_size=5)


def asked(body: Any, scope: bytes = b"p", path: str = CHAT, headers: dict[bytes, bytes] | None = None) -> Request:
    request = request_of(scope, path, headers or {}, json.dumps(body).encode())
    assert request is not None
    return request


def stored(body: bytes = b"{}", expires_s: float = 10.0) -> Stored:
    return Stored([(b"content-type", b"application/json")], body, Usage(1, 2), expires_s)


# --- the same request -------------------------------------------------------------------------------------------------


@given(BODIES, st.randoms())
def test_order_and_spacing_of_names_do_not_matter(body: dict[str, Any], random: Any) -> None:
    names = list(body)
    random.shuffle(names)
    again = json.dumps({name: body[name] for name in names}, indent=2).encode()
    assert request_of(b"p", CHAT, {}, again) == asked(body)


@given(BODIES, BODIES)
def test_different_bodies_are_different_requests(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert (asked(first) == asked(second)) == (first == second)


def test_who_asks_what_where_and_how_matters() -> None:
    body = {"model": "m", "messages": []}
    others = [
        asked(body, scope=b"q"),
        asked(body, path="/v1/completions"),
        asked(body, headers={b"anthropic-beta": b"x"}),
        asked({**body, "seed": 1}),
    ]
    assert len({other.key for other in [asked(body), *others]}) == 5
    assert asked(body, headers={b"cache-control": b"max-age=1"}) == asked(body)


def test_the_delivery_is_not_part_of_the_key() -> None:
    body = {"model": "m"}
    streams = [
        asked({**body, "stream": True}),
        asked({**body, "stream": True, "stream_options": {"include_usage": True}}),
    ]
    assert {request.key for request in streams} == {asked(body).key}
    assert len({request.form for request in [asked(body), *streams]}) == 3
    assert asked({**body, "stream": False}) == asked(body)


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "background"])
def test_requests_with_a_past_are_not_cached(field: str) -> None:
    assert request_of(b"p", "/v1/responses", {}, json.dumps({"input": "x", field: "r1"}).encode()) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":"\xff"}', b"[" * 100_000])
def test_what_is_no_object_is_not_cached(body: bytes) -> None:
    assert request_of(b"p", CHAT, {}, body) is None


# --- how much, how long -----------------------------------------------------------------------------------------------


def test_answers_expire() -> None:
    cache = ResponseCache(100_000)
    cache.put(asked({}), stored(expires_s=10.0))
    assert cache.find(asked({}), CHAT, 9.9) is not None
    assert cache.find(asked({}), CHAT, 10.0) is None
    assert (cache.bytes, cache.hits, cache.misses) == (0, 1, 1)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3000), st.booleans()), max_size=60))
def test_bytes_are_bounded_and_what_was_used_last_stays(steps: list[tuple[int, int, bool]]) -> None:
    cache = ResponseCache(20_000)
    used: list[Request] = []
    for number, size, put in steps:
        request = Request(b"%d" % number, WHOLE)
        if put and size + 600 <= cache.max_entry_bytes:
            cache.put(request, stored(b"x" * size))
        if put or cache.find(request, CHAT, 0.0) is not None:
            used = [one for one in used if one != request] + [request]
        assert cache.bytes <= cache.max_bytes
        assert cache.bytes == sum(len(s.body) + 512 + 28 for s in cache._stored.values())
    if steps and steps[-1][2] and steps[-1][1] + 600 <= cache.max_entry_bytes:
        assert cache.find(used[-1], CHAT, 0.0) is not None


def test_an_answer_that_is_too_large_is_not_kept_and_throws_nothing_out() -> None:
    cache = ResponseCache(8_000)
    cache.put(asked({"a": 1}), stored())
    cache.put(asked({"a": 2}), stored(b"x" * 1001))
    assert cache.find(asked({"a": 1}), CHAT, 0.0) is not None
    assert cache.find(asked({"a": 2}), CHAT, 0.0) is None


# --- what may be kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "form", "body", "complete"),
    [
        (CHAT, WHOLE, b'{"choices":[]}', True),
        (CHAT, WHOLE, b'{"error":{"message":"x"}}', False),
        (CHAT, WHOLE, b'{"choices":', False),
        (CHAT, WHOLE, b"[]", False),
        (CHAT, b"events", b'data: {"choices":[]}\n\ndata: [DONE]\n\n', True),
        (CHAT, b"events", b'data: {"choices":[]}\n\n', False),
        (CHAT, b"events", b'data: {"error":"gone"}\n\ndata: [DONE]\n\n', False),
        (CHAT, b"events", b'data: {"choices":[]}\n\ndata: [DONE]\n\ndata: more', False),
        (CHAT, b"events", b"", False),
        ("/v1/messages", b"events", b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True),
        ("/v1/messages", b"events", b'event: error\ndata: {"type":"error","error":{}}\n\n', False),
        ("/v1/responses", b"events", b'data: {"type":"response.completed"}\n\n', True),
        ("/v1/responses", b"events", b'data: {"type":"response.incomplete"}\n\n', False),
    ],
)
def test_only_complete_answers_are_kept(path: str, form: bytes, body: bytes, complete: bool) -> None:
    assert is_complete(path, form, body) is complete


# --- a stream from a whole answer -------------------------------------------------------------------------------------

ANSWER = {
    "id": "c1", "object": "chat.completion", "created": 5, "model": "m", "system_fingerprint": "f", "vendor": [1.5],
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hé", "reasoning_content": "so"}, "logprobs": None,
         "finish_reason": "stop", "stop_reason": 7},
        {"index": 1, "message": {"role": "assistant", "content": None, "tool_calls": [
            {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
         "finish_reason": "tool_calls"},
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}  # fmt: skip


def replayed(options: str, path: str = CHAT, answer: Any = ANSWER) -> list[Any]:
    found = as_stream(stored(json.dumps(answer).encode()), b"events" + options.encode(), path)
    assert found is not None and dict(found.headers)[b"content-type"].startswith(b"text/event-stream")
    payloads = [sse.payload(event) or b"" for event in sse.EventReader().feed(found.body)]
    assert payloads[-1] == sse.DONE
    return [json.loads(data) for data in payloads[:-1]]


def test_a_whole_chat_answer_becomes_a_stream_that_says_the_same() -> None:
    said, ended = replayed("null")
    assert said["object"] == ended["object"] == "chat.completion.chunk"
    assert (said["vendor"], said["system_fingerprint"], said["id"], ended["id"]) == ([1.5], "f", "c1", "c1")
    first, second = said["choices"]
    assert first["delta"] == ANSWER["choices"][0]["message"] and first["finish_reason"] is None  # type: ignore[index]
    assert first["stop_reason"] == 7
    assert second["delta"]["tool_calls"][0]["index"] == 0 and second["delta"]["tool_calls"][0]["id"] == "t"
    assert [choice["finish_reason"] for choice in ended["choices"]] == ["stop", "tool_calls"]


def test_its_usage_comes_when_it_was_asked_for() -> None:
    *_, last = replayed('{"include_usage":true}')
    assert (last["choices"], last["usage"]) == ([], ANSWER["usage"])
    assert all("usage" not in event for event in replayed('{"include_usage":false}'))


def test_text_completions_too() -> None:
    answer = {"id": "c", "choices": [{"index": 0, "text": "hi", "finish_reason": "length"}]}
    said, ended = replayed("null", "/v1/completions", answer)
    assert said["choices"][0]["text"] == "hi" and ended["choices"][0] == {
        "index": 0, "text": "", "finish_reason": "length",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ('{"continuous_usage_stats":true}', ANSWER),
        ("null", {"choices": "none"}),
        ("null", {"choices": [{"index": 0, "message": "text"}]}),
    ],
)
def test_what_cannot_be_replayed_faithfully_is_a_miss(options: str, answer: Any) -> None:
    assert as_stream(stored(json.dumps(answer).encode()), b"events" + options.encode(), CHAT) is None
