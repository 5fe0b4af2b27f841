"""OpenAI's embeddings, answered by providers that shape them otherwise (transcribed from their references)."""

import asyncio
import base64
import struct
from typing import Any

import httpx
import pytest

from .conftest import Engine, EngineRequest, Stack
from .test_dialects import become, request_of

GEMINI = {"embeddings": [{"values": [0.5, -1.0]}, {"values": [0.25, 2.0]}], "usageMetadata": {"promptTokenCount": 6}}
TITAN = {"embedding": [0.5, -1.0], "inputTextTokenCount": 6, "embeddingsByType": {"float": [0.5, -1.0]}}


async def embed(stack: Stack, provider: str, answer: Any, status: int = 200, **fields: Any) -> httpx.Response:
    async def script(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        engine.answer(writer, answer, status)

    await become(stack, provider)
    for engine in stack.engines:
        engine.script = script
    return await stack.client.post("/v1/embeddings", json={"model": "llama", **fields}, headers=stack.headers())


async def test_gemini_embeds_several_texts(stack: Stack) -> None:
    answer = await embed(stack, "gemini", GEMINI, input=["a", "b"], dimensions=2)
    body = answer.json()
    assert [(e["index"], e["embedding"]) for e in body["data"]] == [(0, [0.5, -1.0]), (1, [0.25, 2.0])]
    assert body["usage"] == {"prompt_tokens": 6, "total_tokens": 6} and body["object"] == "list"
    request = request_of(stack)
    assert request.path == "/v1beta/models/up%3Ax%2Fm:batchEmbedContents"
    assert request.json()["requests"][1] == {
        "model": "models/up:x/m", "content": {"parts": [{"text": "b"}]}, "outputDimensionality": 2,
    }  # fmt: skip
    [row] = await stack.rows(1)
    assert (row["input_tokens"], row["output_tokens"], row["usage_source"]) == (6, 0, "upstream")


async def test_titan_embeds_one_text(stack: Stack) -> None:
    answer = await embed(stack, "bedrock", TITAN, input="a", encoding_format="base64")
    packed = base64.b64decode(answer.json()["data"][0]["embedding"])
    assert struct.unpack("<2f", packed) == (0.5, -1.0)
    request = request_of(stack)
    assert request.path == "/model/up%3Ax%2Fm/invoke" and request.json() == {"inputText": "a"}
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256")
    assert (await stack.rows(1))[0]["input_tokens"] == 6


async def test_tokens_that_are_not_told_are_counted(stack: Stack) -> None:
    await embed(stack, "gemini", {"embeddings": GEMINI["embeddings"]}, input=["a" * 400, "b"])
    [row] = await stack.rows(1)
    assert row["usage_source"] == "counted" and row["input_tokens"] > 100 and row["output_tokens"] == 0


@pytest.mark.parametrize(
    ("provider", "fields", "param"),
    [
        ("bedrock", {"input": ["a", "b"]}, "input"),
        ("gemini", {"input": [1, 2]}, "input"),
        ("gemini", {"input": "a", "extra": 1}, "extra"),
    ],
)
async def test_what_has_no_word_there_is_refused(
    stack: Stack, provider: str, fields: dict[str, Any], param: str
) -> None:
    answer = await embed(stack, provider, {}, **fields)
    assert answer.status_code == 400 and answer.json()["error"]["param"].startswith(param)
    assert not any(engine.requests for engine in stack.engines)


@pytest.mark.parametrize(
    "answer", [{"embeddings": []}, {"embeddings": [{"values": [1e300]}, {"values": [1]}]}, {"other": 1}]
)
async def test_a_wrong_answer_is_a_bad_gateway(stack: Stack, answer: Any) -> None:
    refused = await embed(stack, "gemini", answer, input=["a", "b"], encoding_format="base64")
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_invalid")


async def test_an_error_is_told_and_costs_nothing(stack: Stack) -> None:
    answer = await embed(stack, "gemini", {"error": {"code": 404, "message": "No such model"}}, 404, input="a")
    assert answer.status_code == 404 and answer.json()["error"]["message"] == "No such model"
    [row] = await stack.rows(1)
    assert (row["outcome"], row["cost_nanos"], row["usage_source"]) == ("failed", 0, "none")
