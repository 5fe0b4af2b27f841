"""The worst case covers what providers add and what an address stands for."""

import json
from hashlib import sha256
from typing import Any

import pytest
from gateway.core.call import parse
from gateway.core.exchange import Exchange
from gateway.core.policy import Policy
from gateway.core.problems import Rejected
from gateway.core.reserve import (
    DEFAULT_MAX_OUTPUT_TOKENS,
    TOKENS_OF_INSTRUCTIONS,
    TOKENS_PER_ATTACHMENT,
    input_bound,
    output_bound,
)
from gateway.core.snapshot import Endpoint, load
from gateway.core.wire import Lease, LeaseReply

PICTURE = "https://example.com/a.png"
PLAIN = [{"role": "user", "content": 'What does {"image_url": …} and "source" and "tools" mean?'}]


def bound(**fields: Any) -> tuple[int, int]:
    """The bound, and the size of the body."""
    body = json.dumps({"model": "m", **fields}, ensure_ascii=False).encode()
    return input_bound(parse(body), body), len(body)


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


def test_tools_bring_instructions_that_the_client_does_not_see() -> None:
    found, size = bound(messages=PLAIN, tools=[{"name": "f", "input_schema": {"type": "object"}}])
    assert found == size + TOKENS_OF_INSTRUCTIONS


def endpoint(**fields: Any) -> Endpoint:
    known = {"name": "m", "tiers": [[{"id": "d", "url": "http://h:1", "model": "m"}]], **fields}
    snapshot = {"version": 1, "keys": [], "endpoints": [known]}
    return load(json.dumps(snapshot).encode()).endpoints["m"]


CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


@pytest.mark.parametrize(
    ("path", "fields", "held"),
    [
        (CHAT, {"max_output_tokens": 1}, DEFAULT_MAX_OUTPUT_TOKENS),
        (CHAT, {"max_completion_tokens": 1, "max_tokens": 900}, 900),
        (CHAT, {"max_completion_tokens": -1, "max_tokens": 7}, 7),
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


def sent_along(path: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The body that goes to a deployment of an endpoint with a price, for a key with a budget."""
    policy = Policy("g", "b")
    key = {"id": "k", "sha256": sha256(b"k").hexdigest(), "project_id": "p", "limits": {"budget_nanos": 10**12}}
    known = {"name": "m", "tiers": [[{"id": "d", "url": "http://h:1", "model": "m"}]]}
    priced = {**known, "price": {"output_nanos_per_token": 1}}
    policy.swap(load(json.dumps({"version": 1, "keys": [key], "endpoints": [priced]}).encode()))
    exchange = Exchange("1", path, 0.0, 0)
    policy.authorise(exchange, b"k", "")
    policy.admit(exchange, json.dumps({"model": "m", "messages": [], **fields}).encode(), b"application/json", 0)
    asked = policy.book.messages(1000)
    leases = [Lease(a.scope, a.kind, a.lease_id, a.ceiling, 60_000) for a in asked]
    policy.book.apply(asked, LeaseReply(leases), 1000)
    assert policy.reserve(exchange, 1000) is None
    policy.choose(exchange, 1.0)
    found: dict[str, Any] = json.loads(policy.outgoing_body(exchange))
    return found


@pytest.mark.parametrize("name", ["n", "best_of", "max_tokens", "max_completion_tokens", "max_output_tokens"])
@pytest.mark.parametrize("messages", [[], "odd"])
def test_amounts_beyond_reason_are_refused(name: str, messages: Any) -> None:
    with pytest.raises(Rejected) as refused:
        parse(json.dumps({"model": "m", "messages": messages, name: 10**18}).encode())
    assert refused.value.status == 400
    assert name in refused.value.message
