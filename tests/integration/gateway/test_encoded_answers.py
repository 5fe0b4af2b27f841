"""Answers that a deployment compresses though it was asked not to: what cannot be read is not taken for read."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from .conftest import Engine, EngineRequest, Stack, until

SAID = b"hello " * 200
WHOLE = json.dumps({"choices": [{"message": {"content": SAID.decode()}}], "usage": {"prompt_tokens": 1}}).encode()
EVENTS = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\ndata: [DONE]\n\n' % SAID
DENY = {"id": "no-hello", "kind": "deny", "patterns": ["hello"], "on": ["output"]}


def compressing(stack: Stack, content_type: str, body: bytes, status: int = 200) -> bytes:
    """Have the engines answer so; what comes of it, as the client would get it untouched."""
    packed = gzip.compress(body, mtime=0)
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Encoding: GZip\r\n"

    async def answer(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        if content_type == "application/json":
            writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(packed) + packed)
            return
        writer.write(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        engine.chunk(writer, packed[:20])
        engine.chunk(writer, packed[20:])
        writer.write(b"0\r\n\r\n")

    for engine in stack.engines:
        engine.script = answer
    return packed


def as_asked(stack: Stack, stream: bool) -> bytes:
    return compressing(stack, *(("text/event-stream", EVENTS) if stream else ("application/json", WHOLE)))


async def raw_body(stack: Stack, **fields: Any) -> tuple[Any, bytes]:
    body = {"model": "llama", "messages": [{"role": "user", "content": "hi"}], **fields}
    async with stack.client.stream("POST", "/v1/chat/completions", json=body, headers=stack.headers()) as response:
        return response, b"".join([part async for part in response.aiter_raw()])


@pytest.mark.parametrize("action", ["block", "redact", "observe"])
@pytest.mark.parametrize("stream", [False, True])
async def test_no_guardrail_lets_pass_what_it_cannot_read(stack: Stack, stream: bool, action: str) -> None:
    await stack.change_endpoint(policy={"guardrails": [{**DENY, "action": action}]})
    as_asked(stack, stream)
    response = await stack.chat(stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_invalid")
    assert "compressed" in response.json()["error"]["message"]
    [row] = await stack.rows(1)
    assert (row["outcome"], row["error_code"], row["status"]) == ("failed", "upstream_invalid", 502)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("policy", [{}, {"cache_ttl_s": 60}])
async def test_else_it_passes_as_it_is_and_is_counted(stack: Stack, stream: bool, policy: dict[str, Any]) -> None:
    await stack.change_endpoint(policy=policy)
    packed = as_asked(stack, stream)
    for _ in range(2):
        response, body = await raw_body(stack, stream=stream)
        assert (response.status_code, response.headers["content-encoding"], body) == (200, "GZip", packed)
        assert response.headers.get("x-foundry-cache", "miss") == "miss"
    for row in await stack.rows(2):
        assert (row["outcome"], row["usage_source"]) == ("ok", "counted")
        assert row["output_tokens"] == len(packed) // 4


@pytest.mark.parametrize("stream", [False, True])
async def test_under_a_budget_it_costs_what_was_held(stack: Stack, stream: bool) -> None:
    """Of text that repeats itself a fourth of the compressed bytes is next to nothing."""
    stack.config["keys"][0]["limits"] = {"budget_nanos": 10**9}
    await stack.reconfigure()
    as_asked(stack, stream)
    await raw_body(stack, stream=stream, max_tokens=400)
    [row] = await stack.rows(1)
    assert (row["outcome"], row["output_tokens"], row["usage_source"]) == ("ok", 400, "counted")
    lease = stack.gateway.policy.book.scopes["key:key_1", "money_nanos"].lease
    await until(lambda: lease.held == 0)
    assert lease.spent == row["cost_nanos"] == 10 * row["input_tokens"] + 30 * 400


async def test_a_translated_error_says_nothing_of_a_compression_that_it_has_no_more(stack: Stack) -> None:
    compressing(stack, "application/json", b'{"error": {"message": "no"}}', 400)
    body = {"model": "llama", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    response = await stack.client.post("/v1/messages", json=body, headers=stack.headers())
    assert response.status_code == 400 and response.json()["type"] == "error"
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_translated_is_not_made_up(stack: Stack, stream: bool) -> None:
    as_asked(stack, stream)
    body = {"model": "llama", "max_tokens": 5, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    response = await stack.client.post("/v1/messages", json=body, headers=stack.headers())
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_invalid")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_deployments_and_shadows_are_asked_not_to_compress(stack: Stack, path: str) -> None:
    tier = stack.config["endpoints"][0]["tiers"][0]
    tier[1]["shadow"] = True
    await stack.reconfigure()
    body = {"model": "llama", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    await stack.client.post(path, json=body, headers=stack.headers())
    await stack.rows(2)
    asked = [request.headers.get("accept-encoding") for engine in stack.engines for request in engine.requests]
    assert asked == ["identity", "identity"]
