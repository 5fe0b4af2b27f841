"""Whatever an answer calls itself: where a guardrail may block or redact, it does not pass unread."""

import asyncio
import json
from typing import Any

import pytest

from .conftest import Engine, EngineRequest, Stack

RULE = {"id": "no-hello", "kind": "deny", "patterns": ["hello"], "on": ["output"]}
CHAT = json.dumps({"choices": [{"message": {"content": "oh hello there"}}]})


async def answering(stack: Stack, action: str, content_type: str, body: str) -> None:
    head = f"HTTP/1.1 200 OK\r\n{content_type and 'Content-Type: '}{content_type}{content_type and chr(13) + chr(10)}"

    async def answer(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        data = body.encode()
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)

    for engine in stack.engines:
        engine.script = answer
    await stack.change_endpoint(policy={"guardrails": [{**RULE, "action": action}]})


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/vnd.engine+json"])
async def test_an_answer_is_read_whatever_its_type(stack: Stack, content_type: str) -> None:
    await answering(stack, "redact", content_type, CHAT)
    response = await stack.chat()
    assert response.status_code == 200 and response.json() == json.loads(CHAT.replace("hello", "*****"))
    await answering(stack, "block", content_type, CHAT)
    assert (await stack.chat()).json()["error"]["code"] == "content_blocked"


async def test_one_that_is_no_json_does_not_pass(stack: Stack) -> None:
    await answering(stack, "block", "application/x-ndjson", f"{CHAT}\n{CHAT}\n")
    response = await stack.chat()
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_invalid")
    [row] = await stack.rows(1)
    assert (row["outcome"], row["error_code"]) == ("failed", "upstream_invalid")


async def transcript(stack: Stack) -> Any:
    form = {"model": (None, "llama"), "response_format": (None, "text"), "file": ("a.wav", b"RIFF", "audio/wav")}
    return await stack.client.post("/v1/audio/transcriptions", files=form, headers=stack.headers())


async def test_a_transcript_that_is_plain_text_is_read_as_that(stack: Stack) -> None:
    await answering(stack, "redact", "text/plain; charset=utf-8", "oh hello thére\n")
    response = await transcript(stack)
    assert (response.status_code, response.text) == (200, "oh ***** thére\n")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    await answering(stack, "block", "text/vtt", "WEBVTT\n\n00:01 --> 00:02\noh hello\n")
    assert (await transcript(stack)).json()["error"]["code"] == "content_blocked"


async def test_sound_has_no_text_to_be_read(stack: Stack) -> None:
    await answering(stack, "block", "audio/mpeg", "hello")
    body = {"model": "llama", "input": "x", "voice": "y"}
    response = await stack.client.post("/v1/audio/speech", json=body, headers=stack.headers())
    assert (response.status_code, response.text) == (200, "hello")


@pytest.mark.parametrize("hidden", [f"{CHAT}\n\n", f"{CHAT}\ndata: {{}}\n\n", f"\ufeffdata: {CHAT}\n\n"])
async def test_a_stream_has_nothing_between_its_events(stack: Stack, hidden: str) -> None:
    """Clients skip a byte order mark (HTML Living Standard, 9.2.5); what else they make of such lines is theirs."""
    await answering(stack, "block", "text/event-stream", f"{hidden}data: [DONE]\n\n")
    ask = b'{"model":"llama","stream":true,"messages":[]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-test-1\r\nConnection: close\r\n"
    received = await stack.raw(head + b"Content-Length: %d\r\n\r\n" % len(ask) + ask)
    assert b"hello" not in received
    [row] = await stack.rows(1)
    assert row["outcome"] in ("cut", "failed")


async def test_what_the_standard_knows_passes(stack: Stack) -> None:
    said = json.dumps({"choices": [{"index": 0, "delta": {"content": "oh"}, "finish_reason": "stop"}]})
    body = f": waiting\n\n\n\nevent: x\r\nid: 7\r\nretry: 5\r\ndata: {said}\r\n\r\nid\ndata: [DONE]\n\n"
    await answering(stack, "block", "text/event-stream", body)
    assert (await stack.chat(stream=True)).text == body
