"""What a client pays that leaves before the deployment has said what it used."""

import asyncio
import contextlib
import json
from typing import Any

import httpx
import pytest
from gateway.inference import Inference
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .conftest import serving, until

PART = b'{"model": "t"'.rjust(40)
SEEN = {"stream": 1, "part": 10, "nothing": 0}  # tokens, as text is counted
DENSE = json.dumps({"model": "llama", "max_tokens": 50, "messages": [{"role": "user", "content": "7" * 4000}]}).encode()


async def ask(stack: Any, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has asked."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-test-1\r\nContent-Length: "
    writer.write(head + b"%d\r\n\r\n" % len(body) + body)
    return reader, writer


async def left(stack: Any, sent: str, limits: dict[str, int]) -> dict[str, Any]:
    """The row of a client that asks, and leaves once the engine has begun."""
    over, begun = asyncio.Event(), asyncio.Event()

    async def begin(engine: Any, request: Any, writer: Any) -> None:
        if sent == "stream":
            engine.begin_stream(writer)
            engine.event(writer, {"choices": [{"index": 0, "delta": {"content": "t"}}]})
        elif sent == "part":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n" + PART)
        begun.set()
        await over.wait()

    for engine in stack.engines:
        engine.script = begin
    stack.config["keys"][0]["limits"] = limits
    await stack.reconfigure()
    body = DENSE.replace(b"{", b'{"stream": true, ', 1) if sent == "stream" else DENSE
    reader, writer = await ask(stack, body)
    await asyncio.wait_for(begun.wait(), 10)
    if SEEN[sent]:
        await asyncio.wait_for(reader.readuntil(b'"t"'), 10)
    writer.close()
    [row] = await stack.rows(1)
    over.set()
    assert (row["outcome"], row["usage_source"]) == ("cancelled", "counted")
    assert row["wasted_tokens"] == SEEN[sent], "of the rest nobody knows whether it was made"
    return dict(row)


@pytest.mark.parametrize("sent", SEEN)
async def test_under_a_budget_no_less_than_may_have_been_used(stack: Any, sent: str) -> None:
    """Digits can have a token a byte: a fourth of that would leave three fourths to whoever hangs up on purpose."""
    row = await left(stack, sent, {"budget_nanos": 10**9})
    assert row["input_tokens"] >= 4000 and row["output_tokens"] == (1 if sent == "stream" else 50)
    assert row["cost_nanos"] == 10 * row["input_tokens"] + 30 * row["output_tokens"]
    await until(lambda: stack.gateway.policy.book.scopes["key:key_1", "money_nanos"].lease.held == 0)
    assert stack.gateway.policy.book.scopes["key:key_1", "money_nanos"].lease.spent == row["cost_nanos"]


@pytest.mark.parametrize("sent", SEEN)
async def test_without_a_budget_an_estimate(stack: Any, sent: str) -> None:
    row = await left(stack, sent, {"requests_per_minute": 100})
    assert 1000 <= row["input_tokens"] < 1100 and row["output_tokens"] == SEEN[sent]


async def test_what_was_told_of_the_prompt_is_what_counts(stack: Any) -> None:
    async def tell(engine: Any, request: Any, writer: Any) -> None:
        engine.begin_stream(writer)
        engine.event(writer, {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
        writer.close()

    for engine in stack.engines:
        engine.script = tell
    stack.config["keys"][0]["limits"] = {"budget_nanos": 10**9}
    await stack.reconfigure()
    asked = {"model": "llama", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
    async with stack.client.stream("POST", "/v1/chat/completions", json=asked, headers=stack.headers()) as response:
        with pytest.raises(httpx.RemoteProtocolError):
            await response.aread()
    [row] = await stack.rows(1)
    assert (row["outcome"], row["input_tokens"], row["usage_source"]) == ("cut", 3, "upstream")


@pytest.mark.parametrize("guarded", [True, False])
async def test_an_error_that_breaks_off_costs_no_more_than_a_whole_one(stack: Any, guarded: bool) -> None:
    async def refuse(engine: Any, request: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 400 X\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{")
        await writer.drain()
        writer.close()

    for engine in stack.engines:
        engine.script = refuse
    stack.config["keys"][0]["limits"] = {"budget_nanos": 10**9}
    rules = [{"id": "mail", "kind": "pii", "action": "observe"}] if guarded else []
    await stack.change_endpoint(policy={"guardrails": rules})
    with contextlib.suppress(httpx.RemoteProtocolError):  # with guardrails nothing was passed on yet: it is a problem
        await stack.chat(max_tokens=50)
    [row] = await stack.rows(1)
    assert row["outcome"] in ("cut", "failed")
    assert (row["input_tokens"], row["output_tokens"], row["cost_nanos"]) == (0, 0, 0)


@pytest.mark.parametrize("form", ["hot"])
async def test_what_no_deployment_has_seen_costs_nothing(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.config["keys"][0]["limits"] = {"budget_nanos": 10**9}
    await stack.reconfigure()
    loop, dialled = asyncio.get_running_loop(), asyncio.Event()
    connect, engines = loop.create_connection, {engine.port for engine in stack.engines}

    async def connect_elsewhere(protocol: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        if port in engines:  # they do not answer
            dialled.set()
            await asyncio.Event().wait()
        return await connect(protocol, host, port, **options)

    monkeypatch.setattr(loop, "create_connection", connect_elsewhere)
    _, writer = await ask(stack, DENSE)
    await asyncio.wait_for(dialled.wait(), 10)
    writer.close()
    [row] = await stack.rows(1)
    assert (row["outcome"], row["usage_source"]) == ("cancelled", "none")
    assert row["deployment_id"] and (row["input_tokens"], row["output_tokens"], row["cost_nanos"]) == (0, 0, 0)
    assert stack.gateway.policy.book.scopes["key:key_1", "money_nanos"].lease.held == 0


async def test_a_complete_answer_costs_what_it_told_also_while_a_guardrail_has_it(stack: Any) -> None:
    shown, over = asyncio.Event(), asyncio.Event()

    async def think(request: Request) -> Response:
        shown.set()
        await over.wait()
        return JSONResponse({"flagged": False})

    stack.config["keys"][0]["limits"] = {"budget_nanos": 10**9}
    async with serving(Starlette(routes=[Route("/scan", think, methods=["POST"])])) as port:
        url = f"http://127.0.0.1:{port}/scan"
        scanner = {"id": "slow", "kind": "http", "url": url, "on": ["output"], "timeout_ms": 60_000}
        await stack.change_endpoint(policy={"guardrails": [scanner]})
        _, writer = await ask(stack, DENSE)
        await asyncio.wait_for(shown.wait(), 10)
        writer.close()
        [row] = await stack.rows(1)
        over.set()
    assert (row["outcome"], row["usage_source"]) == ("cancelled", "upstream")
    assert (row["input_tokens"], row["output_tokens"], row["wasted_tokens"]) == (11, 3, 3)
    assert stack.gateway.policy.book.scopes["key:key_1", "money_nanos"].lease.spent == 11 * 10 + 3 * 30


@pytest.mark.parametrize("form", ["reference"])
async def test_a_cached_answer_that_is_half_sent_costs_nothing(stack: Any) -> None:
    """A client that does not read: the reference form waits for it, the hot path has passed everything on."""
    await stack.change_endpoint(policy={"cache_ttl_s": 60})
    await stack.chat()
    asked, stuck, sent = [b'{"model": "llama", "messages": [{"role": "user", "content": "hi"}]}'], asyncio.Event(), []

    async def receive() -> dict[str, Any]:
        if asked:
            return {"type": "http.request", "body": asked.pop()}
        await stuck.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            stuck.set()
            await asyncio.Event().wait()

    headers = [(b"authorization", b"Bearer sk-test-1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "path": "/v1/chat/completions", "headers": headers, "client": ("127.0.0.1", 1)}
    async with httpx.AsyncClient() as client:
        await Inference(stack.gateway, client, scope, receive, send).run()
    assert (b"x-foundry-cache", b"hit") in sent[0]["headers"]
    _, row = await stack.rows(2)
    assert (row["outcome"], row["status"], row["cost_nanos"], row["output_tokens"]) == ("cached", 200, 0, 3)
