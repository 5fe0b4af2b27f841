"""The worst case covers what providers add and what an address stands for."""

import json
from hashlib import sha256
from typing import Any

import pytest
from gateway.core.call import parse
from gateway.core.exchange import Exchange
from gateway.core.multipart import FormReader
from gateway.core.policy import Policy
from gateway.core.problems import Rejected
from gateway.core.reserve import (
    CONTEXT_TOKENS,
    DEFAULT_MAX_OUTPUT_TOKENS,
    PICTURES_OF_A_FORM,
    TOKENS_OF_INSTRUCTIONS,
    TOKENS_PER_ATTACHMENT,
    TOKENS_PER_PICTURE,
    input_bound,
    output_bound,
)
from gateway.core.snapshot import Endpoint, load
from gateway.core.usage import Usage
from gateway.core.wire import Lease, LeaseReply

PICTURE = "https://example.com/a.png"
PLAIN = [{"role": "user", "content": 'What does {"image_url": …} and "source" and "tools" mean?'}]


def bound(path: str = "/v1/chat/completions", **fields: Any) -> tuple[int, int]:
    """The bound, and the size of the body."""
    body = json.dumps({"model": "m", **fields}, ensure_ascii=False).encode()
    return input_bound(parse(body), body, path), len(body)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": PLAIN},
        {"messages": [], "prompt": 'a "image" in words'},
        {"input": "some text"},
        {"input": ["some", "texts"]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "words"}]}]},
        {"messages": "of another shape"},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
    ],
)
def test_text_is_at_most_a_token_a_byte(fields: dict[str, Any]) -> None:
    found, size = bound(**fields)
    assert found == size


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}]},
        {"messages": [{"content": [{"type": "image", "source": {"type": "url", "url": PICTURE}}]}]},
        {"messages": [{"content": [{"type": "document", "source": {"type": "url", "url": PICTURE}}]}]},
        {"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": "aGk="}}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]}]},
        {"messages": PLAIN, "input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        {"messages": {"content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}},
    ],
)
def test_attachments_are_bounded_apart(fields: dict[str, Any]) -> None:
    found, size = bound(**fields)
    assert found >= size + TOKENS_PER_ATTACHMENT


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "input_file", "file_url": PICTURE}],
        [{"type": "file", "file": {"file_id": "f"}}],
        [{"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}}],
        [{"type": "document", "source": {"type": "url", "url": PICTURE}}],
        [{"type": "video_url", "video_url": {"url": PICTURE}}],
        [{"type": "document_url", "document_url": PICTURE}],
    ],
)
def test_documents_and_videos_may_be_as_long_as_a_context(content: list[dict[str, Any]]) -> None:
    for fields in ({"messages": [{"role": "user", "content": content}]}, {"input": [{"content": content}]}):
        found, size = bound(**fields)
        assert found >= size + CONTEXT_TOKENS


def test_escapes_hide_nothing() -> None:
    plain = b'{"model":"m","messages":[{"content":[{"type":"x","image_url":{"url":"u"}}]}]}'
    hidden = plain.replace(b"image_url", b"image\\u005furl")
    assert input_bound(parse(hidden), hidden, CHAT) >= len(hidden) + TOKENS_PER_ATTACHMENT
    hidden = b'{"model":"m","input":"hi","previous\\u005fresponse_id":"r"}'
    assert input_bound(parse(hidden), hidden, RESPONSES) >= CONTEXT_TOKENS


@pytest.mark.parametrize(
    "fields", [{"previous_response_id": "r"}, {"conversation": {"id": "c"}}, {"prompt": {"id": "p"}}]
)
def test_what_the_provider_keeps_may_be_as_long_as_a_context(fields: dict[str, Any]) -> None:
    found, size = bound(RESPONSES, input="hi", **fields)
    assert found == size + CONTEXT_TOKENS
    found, size = bound(RESPONSES, input="hi", **dict.fromkeys(fields))
    assert found == size


@pytest.mark.parametrize(
    "item", [{"type": "item_reference", "id": "i"}, {"id": "i"}, {"type": None, "id": "i"}, "of another shape"]
)
def test_what_an_item_refers_to_may_be_as_long_as_a_context(item: Any) -> None:
    said = {"role": "user", "content": "words"}
    found, size = bound(RESPONSES, input=[said, item])
    assert found == size + CONTEXT_TOKENS
    known = {"type": "function_call_output", "call_id": "c", "output": "words"}
    found, size = bound(RESPONSES, input=[said, known])
    assert found == size


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/messages", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        ("/v1/messages", {"tools": [{"name": "f", "input_schema": {}}, {"type": "web_fetch_20250910"}]}),
        ("/v1/messages", {"tools": [{"type": "bash_20250124", "name": "bash"}]}),
        ("/v1/messages", {"mcp_servers": [{"type": "url", "url": "https://example.com"}]}),
        ("/v1/responses", {"input": "news?", "tools": [{"type": "web_search"}]}),
        ("/v1/responses", {"input": "news?", "tools": [{"type": "function", "name": "f"}, {"type": "mcp"}]}),
        ("/v1/chat/completions", {"web_search_options": {}}),
        ("/v1/chat/completions", {"data_sources": [{"type": "azure_search"}]}),
        ("/v1/chat/completions", {"tools": "of another shape"}),
        ("/v1/chat/completions", {"tools": [{"type": 1}]}),
    ],
)
def test_what_the_provider_looks_up_may_be_as_long_as_a_context(path: str, fields: dict[str, Any]) -> None:
    found, size = bound(path, messages=PLAIN, **fields)
    assert found >= size + CONTEXT_TOKENS


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "web_search"}}]},
        {"tools": [{"type": "custom", "name": "f"}, {"name": "f", "input_schema": {}}]},
        {"tools": None, "web_search_options": None, "mcp_servers": None, "data_sources": None},
    ],
)
def test_what_the_client_runs_is_in_the_body(fields: dict[str, Any]) -> None:
    found, size = bound(messages=PLAIN, **fields)
    assert found == size + TOKENS_OF_INSTRUCTIONS


@pytest.mark.parametrize(("more", "pictures"), [({}, 1), ({"n": 3, "max_tokens": 1}, 3)])
def test_pictures_are_bounded_each(more: dict[str, Any], pictures: int) -> None:
    call = parse(json.dumps({"model": "m", "prompt": "a cat", **more}).encode())
    assert output_bound(call, PICTURES, endpoint(max_output_tokens=10)) == pictures * TOKENS_PER_PICTURE


def test_a_form_may_ask_for_as_many_pictures_as_there_can_be() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
    reader = FormReader(b"multipart/form-data; boundary=b")
    reader.feed(body)
    form = reader.form()
    assert form is not None
    assert output_bound(form.call, "/v1/images/edits", endpoint()) == PICTURES_OF_A_FORM * TOKENS_PER_PICTURE
    assert output_bound(form.call, "/v1/audio/transcriptions", endpoint()) == DEFAULT_MAX_OUTPUT_TOKENS


def test_spoken_answers_that_the_provider_keeps_are_bounded_apart() -> None:
    spoken: list[dict[str, Any]] = [{"role": "assistant", "audio": {"id": "a"}}, {"role": "user", "content": "words"}]
    found, size = bound(messages=[*spoken, *spoken])
    assert found == size + 2 * TOKENS_PER_ATTACHMENT
    found, size = bound(messages=[{"role": "assistant", "content": "words", "audio": None}], audio={"voice": "v"})
    assert found == size
    hidden = b'{"model":"m","messages":[{"\\u0061udio":{"id":"a"}}]}'
    assert input_bound(parse(hidden), hidden, CHAT) == len(hidden) + TOKENS_PER_ATTACHMENT


def test_escapes_that_are_none_are_refused() -> None:
    body = b'{"model":"m","messages":[{"content":[]}],"x":"\\ud800"}'
    with pytest.raises(Rejected):
        input_bound(parse(body), body, CHAT)


def test_tools_bring_instructions_that_the_client_does_not_see() -> None:
    found, size = bound(messages=PLAIN, tools=[{"name": "f", "input_schema": {"type": "object"}}])
    assert found == size + TOKENS_OF_INSTRUCTIONS


def endpoint(**fields: Any) -> Endpoint:
    known = {"name": "m", "tiers": [[{"id": "d", "url": "http://h:1", "model": "m"}]], **fields}
    snapshot = {"version": 1, "keys": [], "endpoints": [known]}
    return load(json.dumps(snapshot).encode()).endpoints["m"]


CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
PICTURES = "/v1/images/generations"


@pytest.mark.parametrize(
    ("path", "fields", "held"),
    [
        (CHAT, {"max_output_tokens": 1}, DEFAULT_MAX_OUTPUT_TOKENS),
        (CHAT, {"max_completion_tokens": 1, "max_tokens": 900}, 900),
        (CHAT, {"max_completion_tokens": -1, "max_tokens": 7}, 7),
        (CHAT, {"max_completion_tokens": 0}, DEFAULT_MAX_OUTPUT_TOKENS),
        (CHAT, {"max_completion_tokens": 0, "max_tokens": 0}, 1),
        (CHAT, {"max_completion_tokens": 5, "max_tokens": 0}, 5),
        (COMPLETIONS, {"max_tokens": 0, "echo": True}, 1),
        (COMPLETIONS, {"max_tokens": -1}, DEFAULT_MAX_OUTPUT_TOKENS),
        (CHAT, {"max_tokens": 5, "n": 3, "best_of": -2}, 15),
        (COMPLETIONS, {"max_completion_tokens": 1, "max_tokens": 100_000}, 100_000),
        (COMPLETIONS, {"max_completion_tokens": 1}, DEFAULT_MAX_OUTPUT_TOKENS),
        (COMPLETIONS, {"prompt": ["a"] * 1000, "max_tokens": 4096}, 4_096_000),
        (COMPLETIONS, {"prompt": [[1, 2], [3]], "max_tokens": 10, "n": 2}, 40),
        (COMPLETIONS, {"prompt": [1, 2, 3], "max_tokens": 10}, 10),
        (COMPLETIONS, {"prompt": [], "max_tokens": 10}, 10),
        (RESPONSES, {"prompt": {"id": "p"}, "max_tokens": 1}, DEFAULT_MAX_OUTPUT_TOKENS),
        (RESPONSES, {"max_output_tokens": 6}, 6),
        ("/v1/messages", {"max_tokens": 8, "max_completion_tokens": 1}, 8),
    ],
)
def test_only_limits_that_the_engine_reads_bound_its_output(path: str, fields: dict[str, Any], held: int) -> None:
    call = parse(json.dumps({"model": "m", **fields}).encode())
    assert output_bound(call, path, endpoint()) == held
    assert output_bound(call, path, endpoint(max_output_tokens=10**9)) >= held


@pytest.mark.parametrize(
    ("path", "name", "odd"),
    [
        (CHAT, "max_tokens", "max_completion_tokens"),
        (COMPLETIONS, "max_tokens", "max_completion_tokens"),
        (RESPONSES, "max_output_tokens", "max_tokens"),
    ],
)
def test_where_nothing_bounds_the_output_a_limit_is_sent_along(path: str, name: str, odd: str) -> None:
    sent = sent_along(path, {odd: -1})
    assert sent == {"model": "m", "messages": [], name: DEFAULT_MAX_OUTPUT_TOKENS}


@pytest.mark.parametrize(
    ("path", "name"), [(CHAT, "max_tokens"), (COMPLETIONS, "max_tokens"), (RESPONSES, "max_output_tokens")]
)
def test_who_wants_no_output_gets_none(path: str, name: str) -> None:
    assert sent_along(path, {name: 0}) == {"model": "m", "messages": [], name: 0}


def sent_along(path: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The body that goes to a deployment of an endpoint with a price, for a key with a budget."""
    policy = priced_policy({"budget_nanos": 10**12}, 1)
    found: dict[str, Any] = json.loads(policy.outgoing_body(leased(policy, path, fields)))
    return found


def priced_policy(limits: dict[str, int], price: int) -> Policy:
    policy = Policy("g", "b")
    key = {"id": "k", "sha256": sha256(b"k").hexdigest(), "project_id": "p", "limits": limits}
    known = {"name": "m", "tiers": [[{"id": "d", "url": "http://h:1", "model": "m"}]]}
    priced = {**known, "price": {"output_nanos_per_token": price}}
    policy.swap(load(json.dumps({"version": 1, "keys": [key], "endpoints": [priced]}).encode()))
    return policy


def admit(policy: Policy, path: str, fields: dict[str, Any]) -> Exchange:
    exchange = Exchange("1", path, 0.0, 0)
    policy.authorise(exchange, b"k", "")
    policy.admit(exchange, json.dumps({"model": "m", "messages": [], **fields}).encode(), b"application/json", 0)
    return exchange


def leased(policy: Policy, path: str, fields: dict[str, Any]) -> Exchange:
    """A request that holds what it may cost, with its deployment chosen."""
    exchange = admit(policy, path, fields)
    asked = policy.book.messages(1000)
    leases = [Lease(a.scope, a.kind, a.lease_id, a.ceiling, 60_000) for a in asked]
    policy.book.apply(asked, LeaseReply(leases), 1000)
    assert policy.reserve(exchange, 1000) is None
    policy.choose(exchange, 1.0)
    return exchange


@pytest.mark.parametrize("name", ["n", "best_of", "max_tokens", "max_completion_tokens", "max_output_tokens"])
@pytest.mark.parametrize("messages", [[], "odd"])
def test_amounts_beyond_reason_are_refused(name: str, messages: Any) -> None:
    with pytest.raises(Rejected) as refused:
        parse(json.dumps({"model": "m", "messages": messages, name: 10**18}).encode())
    assert refused.value.status == 400
    assert name in refused.value.message


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"budget_nanos": 10**18}, "insufficient_quota"),
        ({"tokens_per_minute": 5000}, "rate_limit_exceeded"),
    ],
)
def test_what_exceeds_a_whole_limit_is_refused_and_not_asked_for(limits: dict[str, int], code: str) -> None:
    policy = priced_policy(limits, 10**15)
    with pytest.raises(Rejected) as refused:
        admit(policy, CHAT, {"max_tokens": 10_000})
    assert refused.value.code == code
    assert policy.book.messages(1000) == []


@pytest.mark.parametrize(
    ("path", "fields", "advice"),
    [
        ("/v1/chat/completions", {"max_tokens": 10_000}, "Shorten the request or name a smaller max_tokens."),
        ("/v1/responses", {"max_output_tokens": 10_000}, "name a smaller max_output_tokens."),
        ("/v1/responses", {"max_output_tokens": 1, "previous_response_id": "r"}, "send its text in the request"),
        ("/v1/embeddings", {"input": "x" * 6000}, "Shorten the request."),
    ],
)
def test_the_advice_fits_the_request(path: str, fields: dict[str, Any], advice: str) -> None:
    with pytest.raises(Rejected) as refused:
        admit(priced_policy({"tokens_per_minute": 5000}, 1), path, fields)
    assert advice in refused.value.message.partition(" is 5000. ")[2]


def test_no_request_is_allowed_and_none_can_be_made_smaller() -> None:
    with pytest.raises(Rejected) as refused:
        admit(priced_policy({"requests_per_minute": 0}, 1), "/v1/chat/completions", {"max_tokens": 1})
    assert refused.value.message.endswith("Ask the owner of the project for a higher limit.")


def test_what_is_asked_for_is_at_most_the_limit() -> None:
    policy = priced_policy({"budget_nanos": 10**18}, 10**14)
    admit(policy, CHAT, {"max_tokens": 9000})
    (asked,) = policy.book.messages(1000)
    assert (asked.ceiling, asked.needed) == (10**18, 9 * 10**17)


def test_an_absurd_cost_leaves_the_sums_sound() -> None:
    policy = priced_policy({"budget_nanos": 10**18}, 10**14)
    exchange = leased(policy, CHAT, {"max_tokens": 10})
    lease = exchange.leases[0]
    lease.mark = memoryview(bytearray(8)).cast("q")
    row = policy.finish(exchange, 200, "ok", 2.0, Usage(1, 2**31 - 1), "upstream")
    assert (row.cost_nanos, lease.spent, lease.mark[0]) == (10**18, 10**18, 10**18)
    assert all(asked.spent <= 10**18 and asked.ceiling <= 10**18 for asked in policy.book.messages(3000))
