"""The twin over HTTP, as OpenAI clients, Prometheus and impatient users meet it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from foundry_local.twin import EngineModel, TwinServer, parse_options
from foundry_local.twin.engine import TwinEngine
from foundry_local.twin.tokens import count_tokens

STEP_MS = 2.0


def make_twin(arguments: str = "", step_ms: float = STEP_MS, task: str = "generate") -> TwinServer:
    options = parse_options(["--model", "meta/llama", "--served-model-name", "llm", "alias", *arguments.split()])
    model = EngineModel("llm", "h100_sxm", lambda *_: step_ms, 4000, 16, 2048, 256, 8192, hidden=64, task=task)
    return TwinServer(TwinEngine(model, noise_sigma=0.0), options)


async def until(condition: Callable[[], bool]) -> None:
    """Let the server work until something holds."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it never came true")


@pytest.fixture
async def twin() -> AsyncIterator[TwinServer]:
    server = make_twin()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(twin: TwinServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=twin.url, timeout=20) as found:
        yield found


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "llm", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 20} | fields


async def events(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with client.stream("POST", path, json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-foundry-source"] == "twin"
        lines = [line async for line in response.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    for line in lines[:-1]:
        assert line.startswith("data: ")
        found.append(json.loads(line[6:]))
    return found


async def test_paths_of_the_server(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).status_code == 200
    version = (await client.get("/version")).json()
    assert version["source"] == "twin" and "no model runs here" in version["notice"]
    models = (await client.get("/v1/models")).json()
    assert [card["id"] for card in models["data"]] == ["llm", "alias"]
    assert models["data"][0]["max_model_len"] == 2048 and models["data"][0]["root"] == "meta/llama"
    for path in ("/health", "/version", "/v1/models", "/metrics"):
        assert (await client.get(path)).headers["x-foundry-source"] == "twin"
    assert (await client.get("/nothing")).status_code == 404
    assert (await client.get("/v1/chat/completions")).status_code == 405


async def test_chat_completion(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/chat/completions", json=chat())
    body = response.json()
    assert response.headers["x-foundry-source"] == "twin" and body["object"] == "chat.completion"
    choice = body["choices"][0]
    assert choice["finish_reason"] == "length" and choice["message"]["role"] == "assistant"
    assert count_tokens(choice["message"]["content"]) == 20
    assert body["usage"]["completion_tokens"] == 20
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 20
    again = (await client.post("/v1/chat/completions", json=chat())).json()
    assert again["choices"][0]["message"] == choice["message"], "deterministic"
    other = (await client.post("/v1/chat/completions", json=chat(seed=5))).json()
    assert other["choices"][0]["message"] != choice["message"]


async def test_chat_stream(client: httpx.AsyncClient) -> None:
    found = await events(client, "/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True}))
    whole = (await client.post("/v1/chat/completions", json=chat())).json()
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {event["id"] for event in found} == {found[0]["id"]} and found[0]["id"].startswith("chatcmpl-")
    text = "".join(event["choices"][0]["delta"]["content"] for event in found if event["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    assert found[-1]["choices"] == [] and found[-1]["usage"] == whole["usage"]
    reasons = [event["choices"][0]["finish_reason"] for event in found[:-1]]
    assert reasons[-1] == "length" and set(reasons[:-1]) == {None}
    assert len(found) == 1 + 20 + 1, "role, one event per token, usage"


async def test_no_usage_unless_asked_for(client: httpx.AsyncClient) -> None:
    found = await events(client, "/v1/chat/completions", chat(stream=True))
    assert all("usage" not in event for event in found)


async def test_stop_strings_end_the_text_before_them(client: httpx.AsyncClient) -> None:
    free = (await client.post("/v1/chat/completions", json=chat(max_tokens=60))).json()
    text = free["choices"][0]["message"]["content"]
    stop = text[40:47]
    for stream in (False, True):
        body = chat(max_tokens=60, stop=[stop, "never there"], stream=stream)
        if stream:
            found = await events(client, "/v1/chat/completions", body)
            cut = "".join(event["choices"][0]["delta"]["content"] for event in found)
            reason = found[-1]["choices"][0]["finish_reason"]
        else:
            choice = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]
            cut, reason = choice["message"]["content"], choice["finish_reason"]
        assert cut == text[: text.index(stop)] and reason == "stop"


async def test_answer_ends_by_itself_without_max_tokens(client: httpx.AsyncClient) -> None:
    body = {key: value for key, value in chat().items() if key != "max_tokens"}
    found = (await client.post("/v1/chat/completions", json=body)).json()
    assert found["choices"][0]["finish_reason"] == "stop"
    assert 96 <= found["usage"]["completion_tokens"] < 352
    longer = (await client.post("/v1/chat/completions", json=chat(max_tokens=2, max_completion_tokens=5))).json()
    assert longer["usage"]["completion_tokens"] == 5


async def test_several_choices(client: httpx.AsyncClient) -> None:
    found = (await client.post("/v1/chat/completions", json=chat(n=3))).json()
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in found["choices"]}) == 3
    assert found["usage"]["completion_tokens"] == 60
    streamed = await events(client, "/v1/chat/completions", chat(n=3, stream=True))
    texts = ["", "", ""]
    for event in streamed:
        texts[event["choices"][0]["index"]] += event["choices"][0]["delta"]["content"]
    assert texts == [choice["message"]["content"] for choice in found["choices"]]


async def test_text_completions(client: httpx.AsyncClient) -> None:
    body = {"model": "llm", "prompt": ["One", "Two"], "max_tokens": 4}
    found = (await client.post("/v1/completions", json=body)).json()
    assert found["object"] == "text_completion" and len(found["choices"]) == 2
    assert found["usage"] == {
        "prompt_tokens": 2, "completion_tokens": 8, "total_tokens": 10, "prompt_tokens_details": None,
    }  # fmt: skip
    streamed = await events(client, "/v1/completions", body | {"prompt": "One", "stream": True})
    assert "".join(event["choices"][0]["text"] for event in streamed) == found["choices"][0]["text"]
    echoed = (await client.post("/v1/completions", json=body | {"prompt": "One", "echo": True})).json()
    assert echoed["choices"][0]["text"] == "One" + found["choices"][0]["text"]
    ids = (await client.post("/v1/completions", json={"model": "llm", "prompt": [1, 2, 3]})).json()
    assert ids["usage"]["prompt_tokens"] == 3


async def test_embeddings(client: httpx.AsyncClient) -> None:
    body = {"model": "llm", "input": ["a", "b", "a"]}
    found = (await client.post("/v1/embeddings", json=body)).json()
    vectors = [item["embedding"] for item in found["data"]]
    assert vectors[0] == vectors[2] != vectors[1] and len(vectors[0]) == 64
    assert sum(value * value for value in vectors[0]) == pytest.approx(1.0)
    packed = (await client.post("/v1/embeddings", json=body | {"encoding_format": "base64", "dimensions": 8})).json()
    assert len(packed["data"][0]["embedding"]) == 44, "8 floats of 4 bytes in base64"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (chat(model="other"), 404, "model"),
        (chat(messages=[]), 400, "messages"),
        (chat(messages="hello"), 400, "messages"),
        (chat(messages=[{"content": "x"}]), 400, "messages"),
        (chat(max_tokens=0), 400, "max_tokens"),
        (chat(max_tokens="many"), 400, "max_tokens"),
        (chat(max_tokens=5000), 400, "max_tokens"),
        (chat(messages=[{"role": "user", "content": "word " * 3000}]), 400, "input_tokens"),
        (chat(temperature=9), 400, "temperature"),
        (chat(n=10**9), 400, "n"),
        (chat(stop=[""]), 400, "stop"),
        (chat(stream_options={"include_usage": True}), 400, "stream_options"),
        (chat(logprobs=True), 400, "logprobs"),
    ],
)
async def test_bad_requests(client: httpx.AsyncClient, body: dict[str, Any], code: int, param: str) -> None:
    response = await client.post("/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (code, code, param)
    assert error["message"] and "Traceback" not in error["message"]
    assert (await client.get("/load")).json() == {"server_load": 0}


async def test_body_that_is_no_json(client: httpx.AsyncClient) -> None:
    for content in (b"{", b"[1]", b"\xff\xfe", b""):
        assert (await client.post("/v1/chat/completions", content=content)).status_code == 400


async def test_key_guards_v1_only() -> None:
    twin = make_twin("--api-key secret other")
    await twin.start()
    try:
        async with httpx.AsyncClient(base_url=twin.url) as client:
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/v1/models")).status_code == 401
            assert (await client.get("/v1/models", headers={"authorization": "Bearer wrong"})).status_code == 401
            for key in ("secret", "other"):
                assert (await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})).status_code == 200
    finally:
        await twin.stop()


async def test_disconnect_stops_the_sequence_within_two_tokens(twin: TwinServer) -> None:
    async with (
        httpx.AsyncClient(base_url=twin.url, timeout=20) as client,
        client.stream("POST", "/v1/chat/completions", json=chat(stream=True, max_tokens=1500)) as response,
    ):
        seen = 0
        async for line in response.aiter_lines():
            seen += line.startswith("data:")
            if seen > 10:
                break
        produced = twin.engine.metrics.generation_tokens
    await until(lambda: twin.engine.metrics.finished["abort"] == 1)
    ended = twin.engine.metrics.generation_tokens
    assert ended - produced <= 2
    await asyncio.sleep(5 * STEP_MS / 1000)
    assert twin.engine.metrics.generation_tokens == ended and twin.engine.metrics.running == 0


async def test_disconnect_of_a_client_that_waits_for_the_whole(twin: TwinServer) -> None:
    async with httpx.AsyncClient(base_url=twin.url) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/chat/completions", json=chat(max_tokens=1500), timeout=0.1)
    await until(lambda: twin.engine.metrics.finished["abort"] == 1)
    assert twin.engine.metrics.running == 0 and twin.engine.metrics.kv_cache_usage == 0


async def test_metrics_names_are_vllms(client: httpx.AsyncClient) -> None:
    await client.post("/v1/chat/completions", json=chat())
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    values = dict(line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#"))
    labels = '{engine="0",model_name="llm"}'
    assert values[f"vllm:generation_tokens_total{labels}"] == "20.0"
    assert values[f"vllm:num_requests_running{labels}"] == values[f"vllm:num_requests_waiting{labels}"] == "0.0"
    assert values[f"vllm:kv_cache_usage_perc{labels}"] == "0.0"
    for name, count in (
        ("time_to_first_token_seconds", 1), ("inter_token_latency_seconds", 19), ("time_per_output_token_seconds", 19),
        ("request_time_per_output_token_seconds", 1), ("e2e_request_latency_seconds", 1),
        ("request_queue_time_seconds", 1), ("request_prefill_time_seconds", 1), ("request_decode_time_seconds", 1),
        ("request_prompt_tokens", 1), ("request_generation_tokens", 1), ("iteration_tokens_total", 20),
    ):  # fmt: skip
        assert float(values[f"vllm:{name}_count{labels}"]) == count, name
    assert values['vllm:request_success_total{finished_reason="length",engine="0",model_name="llm"}'] == "1.0"


async def test_an_embedding_model_does_not_chat() -> None:
    twin = make_twin(task="embed")
    await twin.start()
    try:
        async with httpx.AsyncClient(base_url=twin.url) as client:
            response = await client.post("/v1/chat/completions", json=chat())
            assert response.status_code == 400 and "does not support" in response.json()["error"]["message"]
    finally:
        await twin.stop()


async def test_a_stopping_server_lets_running_requests_finish_within_its_grace() -> None:
    twin = make_twin()
    await twin.start()
    async with httpx.AsyncClient(base_url=twin.url, timeout=20) as client:
        running = asyncio.ensure_future(client.post("/v1/chat/completions", json=chat(max_tokens=40)))
        await until(lambda: twin.engine.metrics.running == 1)
        await twin.stop(grace_s=5.0)
        assert (await running).json()["usage"]["completion_tokens"] == 40
        with pytest.raises(httpx.ConnectError):
            await client.get("/health")
