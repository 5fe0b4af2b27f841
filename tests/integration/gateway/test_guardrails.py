"""Guardrails end to end, in both forms of the gateway."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .conftest import OTHER_KEY, TOKEN, Engine, EngineRequest, Stack, serving
from .test_conformance import events_of

MAIL = "joe.doe@example.com"
HIDDEN = "[redacted:email]"


async def guard(stack: Stack, *guardrails: dict[str, Any]) -> None:
    await stack.change_endpoint(policy={"guardrails": list(guardrails)})


def pii(action: str, **more: Any) -> dict[str, Any]:
    return {"id": "no-mail", "kind": "pii", "patterns": ["email"], "action": action, **more}


def asked(stack: Stack) -> list[EngineRequest]:
    return [request for engine in stack.engines for request in engine.requests]


def answering(stack: Stack, text: str) -> None:
    async def script(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        if not request.json().get("stream"):
            body = engine.completion(request)
            body["choices"][0]["message"]["content"] = text
            engine.answer(writer, body)
            return
        engine.begin_stream(writer)
        for at in range(0, len(text), 5):
            engine.event(writer, {"choices": [{"index": 0, "delta": {"content": text[at : at + 5]}}]})
            engine.chunks_sent += 1
            await writer.drain()
            await asyncio.sleep(engine.pause_s)
        engine.event(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if request.json().get("stream_options", {}).get("include_usage"):
            engine.event(writer, {"choices": [], "usage": engine.usage})
        engine.chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")

    for engine in stack.engines:
        engine.script = script


def streamed(body: bytes) -> str:
    documents = [json.loads(event) for event in events_of(body) if event != "[DONE]"]
    return "".join(c["delta"].get("content", "") for d in documents for c in d["choices"])


async def metrics(stack: Stack) -> str:
    response = await stack.client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    return response.text


# --- requests ---------------------------------------------------------------------------------------------------------


async def test_a_blocked_request_reaches_no_engine(stack: Stack) -> None:
    await guard(stack, pii("block"))
    response = await stack.chat(messages=[{"role": "user", "content": f"write to {MAIL}"}])
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "content_blocked" and "no-mail" in response.json()["error"]["message"]
    assert asked(stack) == []
    [row] = await stack.rows(1)
    assert (row["outcome"], row["error_code"], row["status"]) == ("rejected", "content_blocked", 400)
    assert (row["input_tokens"], row["cost_nanos"], row["deployment_id"]) == (0, 0, "")
    assert (
        'guardrail_findings_total{endpoint="llama",guardrail="no-mail",action="block",on="input"} 1'
        in await metrics(stack)
    )


async def test_a_redacted_request_keeps_everything_else(stack: Stack) -> None:
    await guard(stack, pii("redact"))
    parts = [{"type": "text", "text": f"é {MAIL}"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    messages = [{"role": "system", "content": "be kind", "name": MAIL}, {"role": "user", "content": parts}]
    await stack.chat(messages=messages, top_k=5, vendor={"x": [1, None, 1.5]})
    [request] = asked(stack)
    parts[0]["text"] = f"é {HIDDEN}"
    assert request.json() == {"model": "llama", "messages": messages, "top_k": 5, "vendor": {"x": [1, None, 1.5]}}


async def test_what_is_observed_passes_and_is_counted(stack: Stack) -> None:
    await guard(stack, pii("observe"))
    answering(stack, f"I wrote to {MAIL}")
    response = await stack.chat(messages=[{"role": "user", "content": MAIL}])
    assert response.json()["choices"][0]["message"]["content"] == f"I wrote to {MAIL}"
    text = await metrics(stack)
    for direction in ("input", "output"):
        assert f'guardrail="no-mail",action="observe",on="{direction}"}} 1' in text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": [f"a {MAIL}"]}),
        ("/v1/embeddings", {"input": [f"a {MAIL}", "b"]}),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": f"a {MAIL}"}]}]}),
        ("/v1/messages", {"system": f"a {MAIL}", "messages": []}),
        (
            "/v1/messages",
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": f"a {MAIL}"}]}]},
        ),
        ("/v1/rerank", {"query": "q", "documents": [{"text": f"a {MAIL}"}]}),
    ],
)
async def test_texts_are_found_in_the_bodies_of_every_path(stack: Stack, path: str, body: dict[str, Any]) -> None:
    await guard(stack, pii("redact"))
    for deployment in stack.config["endpoints"][0]["tiers"][0]:
        deployment["provider"] = "anthropic" if path == "/v1/messages" else "openai"
    await stack.reconfigure()
    await stack.client.post(path, json={"model": "llama", **body}, headers=stack.headers())
    [request] = asked(stack)
    assert request.json() == json.loads(json.dumps({"model": "llama", **body}).replace(MAIL, HIDDEN))


async def test_token_ids_do_not_get_around_a_check(stack: Stack) -> None:
    await guard(stack, pii("block"))
    for body in ({"prompt": [1, 2, 3]}, {"prompt": [[1, 2]]}):
        response = await stack.client.post("/v1/completions", json={"model": "llama", **body}, headers=stack.headers())
        assert response.status_code == 400 and "token ids" in response.json()["error"]["message"]
    assert asked(stack) == []


@pytest.mark.parametrize("depth", [400, 900, 5000])
async def test_nesting_without_end_is_answered(stack: Stack, depth: int) -> None:
    await guard(stack, pii("block"))
    deep = '{"a":' * depth + f'"{MAIL}"' + "}" * depth
    body = f'{{"model":"llama","messages":[{{"content":[{{"type":"tool_use","input":{deep}}}]}}]}}'
    response = await stack.client.post("/v1/messages", content=body, headers=stack.headers())
    assert response.status_code == 400
    assert response.json()["error"]["code"] in ("content_blocked", "invalid_request")
    assert asked(stack) == []
    [row] = await stack.rows(1)
    assert row["outcome"] == "rejected"


async def test_what_is_said_twice_is_sent_as_it_was_read(stack: Stack) -> None:
    await guard(stack, pii("block"))
    clean = '{"role":"user","content":"hi"}'
    body = f'{{"model":"llama","messages":[{{"role":"user","content":"{MAIL}"}}],"messages":[{clean}]}}'
    response = await stack.client.post("/v1/chat/completions", content=body, headers=stack.headers())
    assert response.status_code == 200
    assert asked(stack)[0].body.count(b"messages") == 1 and MAIL.encode() not in asked(stack)[0].body


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_a_redacted_answer_keeps_everything_else(stack: Stack) -> None:
    await guard(stack, pii("redact"))
    answering(stack, f"Dear {MAIL}!")
    response = await stack.chat()
    expected = stack.engine.completion(asked(stack)[0])
    expected["choices"][0]["message"]["content"] = f"Dear {HIDDEN}!"
    assert response.json() == expected
    [row] = await stack.rows(1)
    assert (row["outcome"], row["output_tokens"], row["usage_source"]) == ("ok", 3, "upstream")


async def test_a_blocked_answer_is_a_problem_and_is_paid_for(stack: Stack) -> None:
    await guard(stack, pii("block", on=["output"]))
    answering(stack, f"Dear {MAIL}!")
    response = await stack.chat()
    assert response.status_code == 400 and response.json()["error"]["code"] == "content_blocked"
    assert MAIL not in response.text
    [row] = await stack.rows(1)
    assert (row["outcome"], row["error_code"]) == ("rejected", "content_blocked")
    assert (row["output_tokens"], row["cost_nanos"]) == (3, 11 * 10 + 3 * 30)


async def test_a_redacted_stream_reads_like_the_redacted_answer(stack: Stack) -> None:
    await guard(stack, pii("redact"))
    answering(stack, f"Dear {MAIL}, and {MAIL}")
    response = await stack.chat(stream=True)
    assert streamed(response.content) == f"Dear {HIDDEN}, and {HIDDEN}"
    assert events_of(response.content)[-1] == "[DONE]"
    assert '"finish_reason":"stop"' in events_of(response.content)[-2]
    [row] = await stack.rows(1)
    assert (row["outcome"], row["output_tokens"], row["usage_source"]) == ("ok", 3, "upstream")


async def test_a_blocked_stream_ends_in_good_order_and_the_engine_is_stopped(stack: Stack) -> None:
    await guard(stack, pii("block", on=["output"]))
    answering(stack, f"Dear {MAIL}, " + "and so on " * 200)
    for engine in stack.engines:
        engine.pause_s = 0.002
    response = await stack.chat(stream=True)
    events = events_of(response.content)
    assert events[-1] == "[DONE]"
    last = json.loads(events[-2])
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "content_filter"}]
    assert last["id"] == "chatcmpl-1"
    assert streamed(response.content) == "Dear "
    [row] = await stack.rows(1)
    assert (row["outcome"], row["error_code"], row["status"]) == ("rejected", "content_blocked", 200)
    assert row["usage_source"] == "counted" and 0 < row["output_tokens"] < 20 and row["cost_nanos"] > 0
    assert sum(engine.chunks_sent for engine in stack.engines) < 50


async def test_errors_of_the_engine_pass_as_they_are(stack: Stack) -> None:
    await guard(stack, pii("block"))
    for engine in stack.engines:

        async def refuse(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
            engine.answer(writer, {"error": {"message": f"not for {MAIL}"}}, 422)

        engine.script = refuse
    response = await stack.chat()
    assert response.status_code == 422 and MAIL in response.text


async def test_a_stream_that_is_no_json_does_not_pass_unread(stack: Stack) -> None:
    await guard(stack, pii("redact"))

    async def talk(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        engine.begin_stream(writer)
        engine.chunk(writer, b"data: mail " + MAIL.encode() + b"\n\n")
        writer.write(b"0\r\n\r\n")

    for engine in stack.engines:
        engine.script = talk
    received = await stack.raw(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-test-1\r\nConnection: close\r\n"
        b'Content-Length: 47\r\n\r\n{"model":"llama","stream":true,"messages":[] }  '
    )
    assert MAIL.encode() not in received
    [row] = await stack.rows(1)
    assert row["outcome"] in ("cut", "failed")


# --- config -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken", [{"kind": "regex", "patterns": ["(a"]}, {"kind": "regex", "patterns": ["(" * 9999]}, {"kind": "http"}]
)
async def test_a_guardrail_that_cannot_be_used_closes_its_endpoint_only(stack: Stack, broken: dict[str, Any]) -> None:
    await guard(stack, {"id": "g-7", **broken})
    response = await stack.chat()
    assert response.status_code == 503 and response.json()["error"]["code"] == "endpoint_closed"
    assert "guardrail g-7" in response.json()["error"]["message"]
    other = await stack.chat(key=OTHER_KEY, model="other")
    assert other.status_code == 200
    assert len(asked(stack)) == 1


# --- scanners ---------------------------------------------------------------------------------------------------------


class Scanner:
    """A scanner that flags texts with a word in it, and takes the word out."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.answer: Response | None = None
        self.port = 0

    async def scan(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.asked.append(body)
        self.headers = dict(request.headers)
        texts = [text.replace("secret", "s*****") for text in body["texts"]]
        return self.answer or JSONResponse({"flagged": texts != body["texts"], "texts": texts})

    def guardrail(self, action: str, **more: Any) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}/scan"
        return {"id": "scan", "kind": "http", "url": url, "action": action, "window_chars": 40, **more}


@pytest.fixture
async def scanner() -> AsyncIterator[Scanner]:
    scanner = Scanner()
    async with serving(Starlette(routes=[Route("/scan", scanner.scan, methods=["POST"])])) as scanner.port:
        yield scanner


async def test_a_scanner_blocks_a_request(stack: Stack, scanner: Scanner) -> None:
    await guard(stack, scanner.guardrail("block", on=["input"]))
    assert (await stack.chat()).status_code == 200
    response = await stack.chat(messages=[{"role": "user", "content": "a secret"}])
    assert response.json()["error"]["code"] == "content_blocked"
    assert scanner.asked[-1] == {"guardrail": "scan", "direction": "input", "texts": ["a secret"]}
    assert len(asked(stack)) == 1


async def test_a_scanner_redacts_both_ways(stack: Stack, scanner: Scanner) -> None:
    await guard(stack, scanner.guardrail("redact"))
    answering(stack, "the secret is out")
    response = await stack.chat(messages=[{"role": "user", "content": "a secret"}])
    assert asked(stack)[0].json()["messages"][0]["content"] == "a s*****"
    assert response.json()["choices"][0]["message"]["content"] == "the s***** is out"


@pytest.mark.parametrize("at", [0, 17, 37, 38, 39, 40, 41, 60, 74])
async def test_a_scanner_sees_a_stream_in_windows(stack: Stack, scanner: Scanner, at: int) -> None:
    await guard(stack, scanner.guardrail("redact", on=["output"]))
    text = ("abcde " * 20)[:at] + " secret " + "xyz " * 10
    answering(stack, text)
    response = await stack.chat(stream=True)
    assert streamed(response.content) == text.replace("secret", "s*****")
    assert events_of(response.content)[-1] == "[DONE]"


async def test_a_scanner_blocks_a_stream_in_good_order(stack: Stack, scanner: Scanner) -> None:
    await guard(stack, scanner.guardrail("block", on=["output"]))
    answering(stack, "abcde " * 20 + "secret" + " and more" * 10)
    response = await stack.chat(stream=True)
    assert '"finish_reason":"content_filter"' in events_of(response.content)[-2]
    assert "secret" not in streamed(response.content) and streamed(response.content).startswith("abcde ")
    [row] = await stack.rows(1)
    assert (row["outcome"], row["error_code"]) == ("rejected", "content_blocked")


@pytest.mark.parametrize("answer", [Response(status_code=500), Response("{}"), Response("no json")])
@pytest.mark.parametrize("fail_open", [True, False])
async def test_a_scanner_that_does_not_answer(
    stack: Stack, scanner: Scanner, answer: Response, fail_open: bool
) -> None:
    scanner.answer = answer
    await guard(stack, scanner.guardrail("block", fail_open=fail_open))
    response = await stack.chat()
    if fail_open:
        assert response.status_code == 200
    else:
        assert response.status_code == 503 and response.json()["error"]["code"] == "guardrail_unavailable"
        assert asked(stack) == []
        [row] = await stack.rows(1)
        assert (row["outcome"], row["error_code"]) == ("failed", "guardrail_unavailable")


async def test_a_scanner_that_cannot_redact_blocks(stack: Stack, scanner: Scanner) -> None:
    scanner.answer = JSONResponse({"flagged": True})
    await guard(stack, scanner.guardrail("redact", on=["input"]))
    assert (await stack.chat()).json()["error"]["code"] == "content_blocked"


async def test_a_scanner_gets_its_credential(stack: Stack, scanner: Scanner) -> None:
    from foundry_core.secrets import seal_for

    stack.config["credentials"] = [{"ref": "scan-key", "sealed": seal_for(TOKEN, "scan-key", "sk-scan")}]
    await guard(stack, scanner.guardrail("block", credential_ref="scan-key"))
    await stack.chat()
    assert scanner.headers["authorization"] == "Bearer sk-scan"


# --- Amazon Bedrock ---------------------------------------------------------------------------------------------------

AWS_KEY = {"access_key_id": "AKID", "secret_access_key": "SECRET", "region": "eu-west-1"}
APPLY = "/guardrail/gr1/version/3/apply"


class Bedrock:
    """ApplyGuardrail as the API reference describes it: masks "secret", blocks "forbidden"."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.port = 0

    async def apply(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.asked.append((dict(request.headers), body))
        texts = [content["text"]["text"] for content in body["content"]]
        if any("forbidden" in text for text in texts):
            topics = {"topicPolicy": {"topics": [{"name": "t", "type": "DENY", "action": "BLOCKED"}]}}
            outputs = [{"text": "Sorry, I cannot answer this."}]
            return JSONResponse({"action": "GUARDRAIL_INTERVENED", "outputs": outputs, "assessments": [topics]})
        if any("secret" in text for text in texts):
            entities = {"piiEntities": [{"match": "secret", "type": "PASSWORD", "action": "ANONYMIZED"}]}
            outputs = [{"text": text.replace("secret", "{PASSWORD}")} for text in texts]
            assessments = [{"sensitiveInformationPolicy": entities}]
            return JSONResponse({"action": "GUARDRAIL_INTERVENED", "outputs": outputs, "assessments": assessments})
        return JSONResponse({"action": "NONE", "outputs": [], "assessments": [{}]})


@pytest.fixture
async def bedrock(stack: Stack) -> AsyncIterator[Bedrock]:
    from foundry_core.secrets import seal_for

    bedrock = Bedrock()
    async with serving(Starlette(routes=[Route(APPLY, bedrock.apply, methods=["POST"])])) as bedrock.port:
        stack.config["credentials"] = [{"ref": "aws", "sealed": seal_for(TOKEN, "aws", json.dumps(AWS_KEY))}]
        url = f"http://127.0.0.1:{bedrock.port}{APPLY}"
        await guard(stack, {"id": "b", "kind": "bedrock", "url": url, "credential_ref": "aws", "action": "redact"})
        yield bedrock


async def test_bedrock_masks_both_ways(stack: Stack, bedrock: Bedrock) -> None:
    answering(stack, "the secret")
    response = await stack.chat(messages=[{"role": "user", "content": "a secret"}])
    assert asked(stack)[0].json()["messages"][0]["content"] == "a {PASSWORD}"
    assert response.json()["choices"][0]["message"]["content"] == "the {PASSWORD}"
    assert [body["source"] for _, body in bedrock.asked] == ["INPUT", "OUTPUT"]


async def test_what_bedrock_blocks_is_blocked(stack: Stack, bedrock: Bedrock) -> None:
    response = await stack.chat(messages=[{"role": "user", "content": "forbidden"}])
    assert response.status_code == 400 and "Sorry" not in response.text
    assert asked(stack) == []


async def test_requests_to_bedrock_are_signed(stack: Stack, bedrock: Bedrock) -> None:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    await stack.chat()
    headers, body = bedrock.asked[0]
    url = f"http://127.0.0.1:{bedrock.port}{APPLY}"
    data = json.dumps(body, separators=(",", ":"))
    again = AWSRequest("POST", url, {"content-type": "application/json", "host": f"127.0.0.1:{bedrock.port}"}, data)
    again.context["timestamp"] = headers["x-amz-date"]
    again.headers["X-Amz-Date"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials("AKID", "SECRET"), "bedrock", "eu-west-1")
    expected = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    assert headers["authorization"].endswith(f"Signature={expected}")
