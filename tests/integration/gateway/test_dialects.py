"""Clients of either dialect against deployments of every provider, in both forms of the gateway."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from foundry_core.secrets import seal_for

from tests.unit.gateway.provider_fixtures import error, frame, stream, whole

from .conftest import KEY, TOKEN, Engine, EngineRequest, Stack, until

CLIENTS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
SECRETS = {
    "bedrock": json.dumps({"access_key_id": "AKID", "secret_access_key": "s3cret", "region": "us-east-1"}),
}
PAIRS = [
    ("anthropic", "openai"), ("openai", "anthropic"), ("openai", "bedrock"), ("anthropic", "bedrock"),
    ("openai", "gemini"), ("anthropic", "gemini"), ("anthropic", "mistral"),
]  # fmt: skip
STREAM_TYPES = {"bedrock": "application/vnd.amazon.eventstream"}


def dialect_of(provider: str) -> str:
    return provider if provider in ("anthropic", "bedrock", "gemini") else "openai"


def speak(provider: str, fault: str = "") -> Any:
    """An engine that answers as the provider does."""
    dialect = dialect_of(provider)

    async def script(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        if fault == "error":
            engine.answer(writer, error(dialect), 429, "Retry-After: 7\r\n")
        elif "stream" not in request.path and b'"stream":true' not in request.body:
            engine.answer(writer, b"{" if fault == "garbage" else whole(dialect))
        else:
            kind = STREAM_TYPES.get(provider, "text/event-stream")
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            data = stream(dialect)
            if fault == "cut":
                engine.chunk(writer, data[: len(data) // 2])
                await writer.drain()
                writer.transport.abort()
                return
            for at in range(0, len(data), 97):
                engine.chunk(writer, data[at : at + 97])
                await writer.drain()
            writer.write(b"0\r\n\r\n")

    return script


async def become(stack: Stack, provider: str, fault: str = "") -> None:
    """Both engines are deployments of the provider."""
    for engine in stack.engines:
        engine.script = speak(provider, fault)
    secret = SECRETS.get(provider, "pk-1")
    for deployment in stack.config["endpoints"][0]["tiers"][0]:
        deployment.update(provider=provider, credential_ref="ref", model="up:x/m")
    await stack.reconfigure(credentials=[{"ref": "ref", "sealed": seal_for(TOKEN, "ref", secret)}])


async def ask(stack: Stack, client: str, **fields: Any) -> httpx.Response:
    return await stack.chat(path=CLIENTS[client], max_tokens=99, **fields)


def request_of(stack: Stack) -> EngineRequest:
    [request] = [request for engine in stack.engines for request in engine.requests]
    return request


def text_of(client: str, body: bytes, streamed: bool) -> str:
    """What a client of the dialect would show."""
    if not streamed:
        answer = json.loads(body)
        if client == "openai":
            return str(answer["choices"][0]["message"]["content"])
        return "".join(block.get("text", "") for block in answer["content"])
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ") and line != "data: [DONE]"]
    if client == "openai":
        deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)
    return "".join(json.loads(event).get("delta", {}).get("text", "") for event in events)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_every_client_understands_every_provider(
    stack: Stack, client: str, provider: str, streamed: bool
) -> None:
    await become(stack, provider)
    answer = await ask(stack, client, stream=streamed)
    assert answer.status_code == 200, answer.text
    assert text_of(client, answer.content, streamed) == "Let me check."
    assert b"toolu_1" in answer.content and b"toolu_2" in answer.content and b"Two" in answer.content
    kind = "text/event-stream" if streamed else "application/json"
    assert answer.headers["content-type"].startswith(kind)
    last = b"data: [DONE]\n\n" if client == "openai" else b'{"type":"message_stop"}\n\n'
    assert answer.content.endswith(last if streamed else b"}")
    [row] = await stack.rows(1)
    assert [row["input_tokens"], row["output_tokens"], row["cached_tokens"]] == [12, 40, 7]
    assert (row["outcome"], row["usage_source"], row["provider"]) == ("ok", "upstream", provider)
    assert row["cost_nanos"] == 12 * 10 + 40 * 30 and (row["ttft_ms"] is not None) is streamed


async def test_how_anthropic_is_addressed(stack: Stack) -> None:
    await become(stack, "anthropic")
    await ask(stack, "openai")
    request = request_of(stack)
    assert (request.path, request.headers["x-api-key"]) == ("/v1/messages", "pk-1")
    assert request.headers["anthropic-version"] == "2023-06-01" and "authorization" not in request.headers
    assert request.headers["user-agent"] == "foundry-gateway"
    assert request.json() == {
        "model": "up:x/m", "max_tokens": 99,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    }  # fmt: skip


async def test_how_gemini_is_addressed(stack: Stack) -> None:
    await become(stack, "gemini")
    await ask(stack, "openai", stream=True)
    request = request_of(stack)
    assert request.path == "/v1beta/models/up%3Ax%2Fm:streamGenerateContent?alt=sse"
    assert request.headers["x-goog-api-key"] == "pk-1" and "authorization" not in request.headers


async def test_how_vertex_is_addressed(stack: Stack) -> None:
    for deployment in stack.config["endpoints"][0]["tiers"][0]:
        deployment["url"] += "/v1/projects/p/locations/l/publishers/google"
    await become(stack, "gemini")
    await ask(stack, "anthropic")
    path = request_of(stack).path
    assert path == "/v1/projects/p/locations/l/publishers/google/models/up%3Ax%2Fm:generateContent"


async def test_how_bedrock_is_addressed(stack: Stack) -> None:
    await become(stack, "bedrock")
    await ask(stack, "openai")
    request = request_of(stack)
    assert request.path == "/model/up%3Ax%2Fm/converse"
    signed = request.headers["authorization"]
    assert signed.startswith("AWS4-HMAC-SHA256 Credential=AKID/") and "/us-east-1/bedrock/aws4_request" in signed
    assert request.headers["content-type"] == "application/json" and request.headers["x-amz-date"]


async def test_the_signature_fits_what_bedrock_gets(stack: Stack) -> None:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    await become(stack, "bedrock")
    await ask(stack, "anthropic", stream=True)
    got = request_of(stack)
    signer = SigV4Auth(Credentials("AKID", "s3cret"), "bedrock", "us-east-1")
    headers = {name: got.headers[name] for name in ("content-type", "host")}
    request = AWSRequest("POST", f"http://{got.headers['host']}{got.path}", headers, got.body)
    request.context["timestamp"] = got.headers["x-amz-date"]
    request.headers["X-Amz-Date"] = got.headers["x-amz-date"]
    text = signer.string_to_sign(request, signer.canonical_request(request))
    assert got.headers["authorization"].endswith(f"Signature={signer.signature(text, request)}")


async def test_an_api_key_of_bedrock_is_a_bearer_token(stack: Stack) -> None:
    await become(stack, "bedrock")
    await stack.reconfigure(credentials=[{"ref": "ref", "sealed": seal_for(TOKEN, "ref", "bedrock-key")}])
    await ask(stack, "openai")
    assert request_of(stack).headers["authorization"] == "Bearer bedrock-key"


async def test_openai_is_asked_for_usage_and_mistral_is_not(stack: Stack) -> None:
    await become(stack, "openai")
    await ask(stack, "anthropic", stream=True, metadata={"user_id": "u"})
    assert request_of(stack).json()["stream_options"] == {"include_usage": True}
    assert request_of(stack).json()["user"] == "u"
    for engine in stack.engines:
        engine.requests.clear()
    await become(stack, "mistral")
    await ask(stack, "anthropic", stream=True, metadata={"user_id": "u"})
    assert not {"stream_options", "user", "max_completion_tokens"} & set(request_of(stack).json())


@pytest.mark.parametrize(("provider", "kept"), [("openai", True), ("azure", False), ("mistral", False)])
async def test_earlier_thoughts_go_where_they_are_understood(stack: Stack, provider: str, kept: bool) -> None:
    await become(stack, provider)
    said = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "Yes."}]
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": said}, {"role": "user", "content": "y"}]
    assert (await ask(stack, "anthropic", messages=turns)).status_code == 200
    assert ("reasoning_details" in request_of(stack).json()["messages"][1]) is kept


async def test_a_token_limit_of_ours_has_the_name_that_the_provider_knows(stack: Stack) -> None:
    for provider, name in (("azure", "max_completion_tokens"), ("together", "max_tokens")):
        await become(stack, provider)
        await stack.change_endpoint(limits={"budget_nanos": 10**12}, max_output_tokens=None)
        assert (await stack.chat()).status_code == 200
        assert request_of(stack).json()[name] == 4096
        assert request_of(stack).headers.get("api-key") == ("pk-1" if provider == "azure" else None)
        for engine in stack.engines:
            engine.requests.clear()


async def test_a_dialect_that_both_speak_is_not_touched(stack: Stack) -> None:
    await become(stack, "anthropic")
    answer = await ask(stack, "anthropic", container="unknown to us")
    assert answer.content == whole("anthropic")
    assert request_of(stack).headers["user-agent"] == "foundry-gateway"
    assert request_of(stack).json()["container"] == "unknown to us"


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_errors_keep_their_status_and_get_the_clients_shape(stack: Stack, client: str, provider: str) -> None:
    await become(stack, provider, "error")
    await stack.change_endpoint(policy={"retries": 0})
    answer = await ask(stack, client, stream=True)
    assert answer.status_code == 429 and answer.headers["retry-after"] == "7"
    body = answer.json()
    assert body["error"]["message"] == "Overloaded" and body["error"]["type"] == "rate_limit_error"
    assert body.get("type") == ("error" if client == "anthropic" else None)
    assert (await stack.rows(1))[0]["outcome"] == "failed"


@pytest.mark.parametrize("provider", ["anthropic", "bedrock", "gemini"])
async def test_what_cannot_be_translated_is_refused_by_name(stack: Stack, provider: str) -> None:
    await become(stack, provider)
    answer = await ask(stack, "openai", logit_bias={"1": 2})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "logit_bias"
    other = await stack.client.post("/v1/completions", json={"model": "llama", "prompt": "x"}, headers=stack.headers())
    assert other.status_code == 400 and "/v1/completions" in other.json()["error"]["message"]
    assert not any(engine.requests for engine in stack.engines)
    assert {row["outcome"] for row in await stack.rows(2)} == {"rejected"}


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_stream_that_breaks_off_is_cut(stack: Stack, client: str, provider: str) -> None:
    await become(stack, provider, "cut")
    body = json.dumps(
        {"model": "llama", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "x"}]}
    )
    head = f"POST {CLIENTS[client]} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    received = await stack.raw((head + body).encode())
    assert b"200 OK" in received and not received.endswith(b"0\r\n\r\n") and b"[DONE]" not in received
    assert (await stack.rows(1))[0]["outcome"] == "cut"


@pytest.mark.parametrize("provider", ["anthropic", "bedrock", "gemini"])
async def test_an_answer_that_is_not_the_providers_is_a_bad_gateway(stack: Stack, provider: str) -> None:
    await become(stack, provider, "garbage")
    answer = await ask(stack, "openai")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_invalid")


@pytest.mark.parametrize(
    "said", [b"", b"data:[DONE]", b"data: {}\n\ndata: [DONE]\n\n", b"data: {nope}\n\n", b"<html>busy</html>"]
)
@pytest.mark.parametrize(
    ("client", "provider"), [("anthropic", "mistral"), ("openai", "anthropic"), ("openai", "gemini")]
)
async def test_a_stream_that_says_nothing_is_a_problem(stack: Stack, client: str, provider: str, said: bytes) -> None:
    async def script(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        engine.begin_stream(writer)
        if said:
            engine.chunk(writer, said)
        writer.write(b"0\r\n\r\n")

    await become(stack, provider)
    for engine in stack.engines:
        engine.script = script
    answer = await ask(stack, client, stream=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_invalid")
    [row] = await stack.rows(1)
    assert (row["status"], row["outcome"], row["error_code"]) == (502, "failed", "upstream_invalid")


@pytest.mark.parametrize("form", ["hot"])
@pytest.mark.parametrize("said", [b"", b": one moment\n\n"])
async def test_a_stream_that_stalls_before_it_says_anything_times_out(stack: Stack, said: bytes) -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def script(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        engine.begin_stream(writer)
        if said:
            engine.chunk(writer, said)
        begun.set()
        await over.wait()

    await become(stack, "gemini")
    for engine in stack.engines:
        engine.script = script
    asking = asyncio.create_task(ask(stack, "openai", stream=True))
    await begun.wait()
    await until(lambda: any(front._job is not None and front._job.passing for front in stack.hot.fronts))
    stack.hot.tick += 1000
    for front in list(stack.hot.fronts):
        front.sweep(stack.hot.tell_time())
    answer = await asking
    over.set()
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")


async def test_a_failure_within_a_stream_reaches_the_client(stack: Stack) -> None:
    async def script(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        kind = STREAM_TYPES["bedrock"].encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind)
        engine.chunk(writer, frame({":message-type": "event", ":event-type": "messageStart"}, {"role": "assistant"}))
        failure = {":message-type": "exception", ":exception-type": "throttlingException"}
        engine.chunk(writer, frame(failure, {"message": "Slow down"}))
        writer.write(b"0\r\n\r\n")

    await become(stack, "bedrock")
    for engine in stack.engines:
        engine.script = script
    answer = await ask(stack, "anthropic", stream=True)
    assert b"event: error" in answer.content and b"Slow down" in answer.content
    body = b'{"model":"llama","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":true}'
    head = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\nconnection: close\r\n" % KEY.encode()
    raw = await stack.raw(head + b"content-length: %d\r\n\r\n%b" % (len(body), body), timeout_s=10)
    assert b"Slow down" in raw and raw.count(b"0\r\n\r\n") == 1
    assert [row["outcome"] for row in await stack.rows(2)] == ["failed", "failed"]


async def test_a_failed_provider_is_replaced_by_one_of_another_dialect(stack: Stack) -> None:
    await become(stack, "anthropic")
    tiers = stack.config["endpoints"][0]["tiers"]
    stack.engines[0].script = speak("anthropic", "error")
    second = {**tiers[0][1], "id": "dep_2", "provider": "openai", "credential_ref": None}
    stack.engines[1].script = speak("openai")
    await stack.change_endpoint(tiers=[[tiers[0][0]], [second]])
    answer = await ask(stack, "openai")
    assert answer.content == whole("openai")  # passed on as it is
    [row] = await stack.rows(1)
    assert (row["provider"], row["retries"], row["input_tokens"]) == ("openai", 1, 12)


@pytest.mark.parametrize("lack", ["word", "key"])
async def test_a_deployment_that_cannot_be_asked_is_passed_over(stack: Stack, lack: str) -> None:
    await become(stack, "anthropic")
    tiers = stack.config["endpoints"][0]["tiers"]
    stack.engines[1].script = speak("openai")
    first = {**tiers[0][0], "credential_ref": "missing"} if lack == "key" else tiers[0][0]
    second = {**tiers[0][1], "id": "dep_2", "provider": "openai", "credential_ref": None}
    stack.config["endpoints"].pop()
    await stack.change_endpoint(tiers=[[first], [second]], policy={"retries": 0})
    answer = await ask(stack, "openai", **({"logit_bias": {"1": 2}} if lack == "word" else {}))
    assert answer.content == whole("openai")
    [row] = await stack.rows(1)
    assert (row["deployment_id"], row["retries"]) == ("dep_2", 0) and not stack.engines[0].requests
    snapshot = stack.gateway.policy.snapshot
    assert all(deployment.outstanding == 0 for deployment in snapshot.deployments.values())


async def test_a_client_that_leaves_a_translated_stream_stops_the_provider(stack: Stack) -> None:
    async def endless(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        engine.begin_stream(writer)
        engine.chunk(writer, stream("anthropic").partition(b"event: message_delta")[0])
        delta = {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "x"}}
        while True:
            engine.chunk(writer, b"data: " + json.dumps(delta).encode() + b"\n\n")
            engine.chunks_sent += 1
            await writer.drain()
            await asyncio.sleep(0.001)

    await become(stack, "anthropic")
    for engine in stack.engines:
        engine.script = endless
    body = {"model": "llama", "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with stack.client.stream("POST", CLIENTS["openai"], json=body, headers=stack.headers()) as answer:
        await answer.aiter_raw().__anext__()
    [row] = await stack.rows(1)
    assert row["outcome"] == "cancelled" and row["usage_source"] == "counted" and row["output_tokens"] > 0
    await asyncio.sleep(0.05)
    sent = sum(engine.chunks_sent for engine in stack.engines)
    await asyncio.sleep(0.05)
    assert sum(engine.chunks_sent for engine in stack.engines) - sent <= 2


@pytest.mark.parametrize("streamed", [False, True])
async def test_stages_see_the_clients_dialect(stack: Stack, streamed: bool) -> None:
    """A guardrail redacts what a provider of another dialect says, and the cache gives it back."""
    await become(stack, "bedrock")
    rule = {"id": "g1", "kind": "regex", "patterns": ["check"], "on": ["output"], "action": "redact"}
    await stack.change_endpoint(policy={"guardrails": [rule], "cache_ttl_s": 60})
    answers = [await ask(stack, "openai", stream=streamed, temperature=0) for _ in range(2)]
    texts = [text_of("openai", answer.content, streamed) for answer in answers]
    assert texts[0] == texts[1] and texts[0].startswith("Let me ") and "check" not in texts[0]
    assert [row["outcome"] for row in await stack.rows(2)] == ["ok", "cached"]
    assert len([request for engine in stack.engines for request in engine.requests]) == 1
