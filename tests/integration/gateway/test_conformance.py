"""One suite for both forms of the gateway: what a client, an engine and the metering see."""

import asyncio
import contextlib
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from foundry_core.secrets import seal_for
from gateway import clock

from .conftest import until

MINUTE_NS = 60 * 10**9


def events_of(body: bytes) -> list[str]:
    return [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]


async def test_json_answer_passes_and_is_metered(stack: Any) -> None:
    response = await stack.chat()
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == "hello"
    [row] = await stack.rows(1)
    assert row["outcome"] == "ok" and row["status"] == 200 and row["stream"] is False
    assert (row["project_id"], row["key_id"], row["endpoint"]) == ("prj_1", "key_1", "llama")
    assert row["deployment_id"].startswith("dep_") and row["model"] == "llama"
    assert (row["input_tokens"], row["output_tokens"], row["usage_source"]) == (11, 3, "upstream")
    assert row["cost_nanos"] == 11 * 10 + 3 * 30
    assert row["e2e_ms"] > 0 and row["ttft_ms"] is row["tpot_ms"] is None  # its first byte comes with its last token
    assert row["event_id"] == row["request_id"] == response.headers["x-request-id"]


async def test_no_field_is_lost_in_either_direction(stack: Any) -> None:
    extras = {
        "top_k": 5, "min_p": 0.1, "guided_json": {"type": "object"}, "vendor_param_xyz": {"deep": [1, None, "é"]},
        "logit_bias": {"12": 1}, "chat_template_kwargs": {"enable_thinking": False}, "seed": 7, "tools": [],
    }  # fmt: skip
    response = await stack.chat(**extras)
    engine = stack.engines[0] if stack.engines[0].requests else stack.engines[1]
    got = engine.requests[0].json()
    assert {name: got[name] for name in extras} == extras
    assert set(got) == set(extras) | {"model", "messages"}
    assert response.json() == engine.completion(engine.requests[0])


async def test_another_upstream_name_changes_the_model_and_nothing_else(stack: Any) -> None:
    for deployment in stack.config["endpoints"][0]["tiers"][0]:
        deployment["model"] = "meta/llama-8b"
    await stack.reconfigure()
    await stack.chat(vendor={"x": 1.50, "y": "\u2028"})
    engine = stack.engines[0] if stack.engines[0].requests else stack.engines[1]
    got = engine.requests[0].json()
    assert got["model"] == "meta/llama-8b"
    assert got["vendor"] == {"x": 1.5, "y": "\u2028"} and got["messages"] == [{"role": "user", "content": "hi"}]


async def test_stream_passes_without_the_usage_event_that_nobody_asked_for(stack: Any) -> None:
    response = await stack.chat(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.content)
    assert events[-1] == "[DONE]" and len(events) == 4
    assert all(json.loads(event)["choices"] for event in events[:-1])
    [row] = await stack.rows(1)
    assert (row["input_tokens"], row["output_tokens"], row["usage_source"]) == (11, 3, "upstream")
    assert row["stream"] is True and row["tpot_ms"] is not None
    assert row["e2e_ms"] >= row["ttft_ms"] > 0


async def test_stream_keeps_the_usage_event_that_was_asked_for(stack: Any) -> None:
    response = await stack.chat(stream=True, stream_options={"include_usage": True, "continuous": 1})
    usage_events = [e for e in events_of(response.content) if '"usage"' in e]
    assert len(usage_events) == 1
    engine = stack.engines[0] if stack.engines[0].requests else stack.engines[1]
    assert engine.requests[0].json()["stream_options"] == {"include_usage": True, "continuous": 1}


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_usage_is_read_whatever_the_chunking(stack: Any, size: int) -> None:
    async def dribble(engine: Any, request: Any, writer: Any) -> None:
        usage = {"choices": [], "usage": engine.usage}
        text = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
        text += b"data: " + json.dumps(usage).encode() + b"\n\ndata: [DONE]\n\n"
        engine.begin_stream(writer)
        for at in range(0, len(text), size):
            engine.chunk(writer, text[at : at + size])
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    for engine in stack.engines:
        engine.script = dribble
    response = await stack.chat(stream=True)
    assert events_of(response.content) == ['{"choices":[{"delta":{"content":"x"}}]}', "[DONE]"]
    [row] = await stack.rows(1)
    assert (row["input_tokens"], row["output_tokens"]) == (11, 3)


@pytest.mark.parametrize(
    ("headers", "code", "status"),
    [
        ({}, "invalid_api_key", 401),
        ({"authorization": "Bearer sk-wrong"}, "invalid_api_key", 401),
        ({"authorization": "Basic c2s6"}, "invalid_api_key", 401),
    ],
)
async def test_without_a_good_key_nothing_passes(stack: Any, headers: dict[str, str], code: str, status: int) -> None:
    for method, path in (
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("POST", "/metrics"),
        ("GET", "/nope"),
        ("TRACE", "/nope"),
        ("PROPFIND", "/v1/models"),
        ("POST", "/v1/files"),
        ("GET", "/v1/chat/completions"),
        ("DELETE", "/v1/messages/x"),
    ):
        response = await stack.client.request(method, path, headers=headers, content=b"{}")
        assert response.status_code == status, path
        assert response.json()["error"]["code"] == code
    assert not stack.engines[0].requests and not stack.engines[1].requests
    assert (await stack.client.get("/health")).status_code == 200


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/models"])
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"", b"400"),
        (b"Host: x\r\nHost: x\r\n", b"400"),
        (b"Host: user@x\r\n", b"400"),
        (b"Host: x, y\r\n", b"400"),
        (b"Host: x\r\nTransfer-Encoding: gzip, chunked\r\n", b"501"),
    ],
)
async def test_unsound_heads_are_refused_and_closed(stack: Any, path: bytes, lines: bytes, status: bytes) -> None:
    body = b"" if b"chunked" in lines else b"Content-Length: 2\r\n"
    data = b"POST %b HTTP/1.1\r\nAuthorization: Bearer sk-test-1\r\n%b%b\r\n" % (path, lines, body)
    answer = await stack.raw(data + (b"{}" if body else b"2\r\n{}\r\n0\r\n\r\n") + data)
    assert answer[9:12] == status and answer.lower().count(b"http/1.1 ") == 1, answer
    assert b"connection: close" in answer.lower() and not stack.engine.requests


async def test_an_endpoint_that_is_closed_says_why(stack: Any) -> None:
    await stack.change_endpoint(problem="its address is not outside")
    error = (answer := await stack.chat()).json()["error"]
    assert (answer.status_code, error["code"]) == (503, "endpoint_closed")
    assert "its address is not outside" in error["message"]


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/models"])
@pytest.mark.parametrize(
    "lines",
    [
        b"X-A: %b\r\n" % (b"a" * 60_000),
        b"X-A: b\r\n" * 10_000,
        b"".join(b"X-%d: a\r\n" % n for n in range(6000)),
    ],
    ids=["long", "repeated", "many"],
)
async def test_a_head_that_is_too_large_is_refused_also_when_it_comes_at_once(
    stack: Any, path: bytes, lines: bytes
) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-test-1\r\n" % path
    answer = await stack.raw(head + lines + b"Content-Length: 2\r\n\r\n{}" + head)
    assert answer[9:12] == b"431" and answer.lower().count(b"http/1.1 ") == 1, answer
    assert b"connection: close" in answer.lower() and b"header_too_large" in answer


async def test_a_body_is_no_part_of_the_head(stack: Any) -> None:
    body = json.dumps({"model": "llama", "messages": [{"role": "user", "content": "a" * 60_000}]}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-test-1\r\n"
    request = head + b"X-A: b\r\n" * 3000 + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert (await stack.raw(request + request)).count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("host", [b"http://x", b"HTTPS://other.example:8443"])
async def test_a_target_may_be_absolute(stack: Any, host: bytes) -> None:
    """RFC 9112, 3.2.2."""
    head = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer sk-test-1\r\n"
    body = json.dumps({"model": "llama", "messages": []}).encode()
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    assert b'"id":"llama"' in await stack.raw(b"GET " + host + b"/v1/models?x=1" + head + b"\r\n")
    answer = await stack.raw(b"POST " + host + b"/v1/chat/completions?x=1" + head + length + body)
    assert answer[9:12] == b"200" and sum(len(engine.requests) for engine in stack.engines) == 1
    assert (await stack.raw(b"GET " + host + b"/?x" + head + b"\r\n"))[9:12] == b"404"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("PUT", "/v1/audio/speech", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/files", 400, "invalid_request"),
        ("PUT", "/v1/files", 405, "method_not_allowed"),
    ],
)
async def test_what_has_no_route_is_a_problem(stack: Any, method: str, path: str, status: int, code: str) -> None:
    response = await stack.client.request(method, path, headers=stack.headers())
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("method", "path", "word"),
    [("GET", "/v1/files", "control plane"), ("GET", "/v1/files/file-1/content", "control plane"),
     ("DELETE", "/v1/files/file-1", "control plane"), ("POST", "/v1/uploads", "POST /v1/files")],
)  # fmt: skip
async def test_clients_of_apis_that_are_not_there_are_told_so(stack: Any, method: str, path: str, word: str) -> None:
    """404, since OpenAI's clients try again after a 501; the key comes first. The stand-in keeps no files."""
    response = await stack.client.request(method, path, content=b"{}", headers=stack.headers())
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (404, "not_found", "invalid_request_error")
    assert word in error["message"]
    stranger = await stack.client.request(method, path, content=b"{}")
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_request"),
        (b"{nope", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b'{"messages":[]}', 400, "invalid_request"),
        (b'{"model":1}', 400, "invalid_request"),
        (b'{"model":"\xff\xfe"}', 400, "invalid_request"),
        (b'{"model":"llama","stream":true,"\xb3":1}', 400, "invalid_request"),
        (b'{"model":"llama","unread":"\xed\xa0\x80"}', 400, "invalid_request"),
        (b'{"model":' + b"[" * 50_000, 400, "invalid_request"),
        (b'{"model":"nope"}', 404, "model_not_found"),
        (b'{"model":"other"}', 404, "model_not_found"),
    ],
)
async def test_bad_bodies_get_a_plain_answer(stack: Any, body: bytes, status: int, code: str) -> None:
    response = await stack.client.post("/v1/chat/completions", content=body, headers=stack.headers())
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    [row] = await stack.rows(1)
    assert row["outcome"] == "rejected" and row["error_code"] == code and row["cost_nanos"] == 0


async def test_models_are_those_that_the_key_may_use(stack: Any) -> None:
    mine = await stack.client.get("/v1/models", headers=stack.headers())
    assert [m["id"] for m in mine.json()["data"]] == ["llama"]
    theirs = await stack.client.get("/v1/models", headers=stack.headers("sk-test-2"))
    assert [m["id"] for m in theirs.json()["data"]] == ["other"]
    assert (await stack.chat(key="sk-test-2")).json()["error"]["code"] == "model_not_allowed"


async def test_a_dead_deployment_is_passed_over(stack: Any) -> None:
    await stack.engines[0].stop()
    statuses = [(await stack.chat()).status_code for _ in range(8)]
    assert statuses == [200] * 8
    rows = await stack.rows(8)
    assert sum(row["retries"] for row in rows) >= 1


async def test_server_errors_are_retried_elsewhere_and_the_last_one_is_shown(stack: Any) -> None:
    async def broken(engine: Any, request: Any, writer: Any) -> None:
        engine.answer(writer, {"error": {"message": "boom"}}, 500)

    stack.engines[0].script = broken
    assert [(await stack.chat()).status_code for _ in range(6)] == [200] * 6
    stack.engines[1].script = broken
    response = await stack.chat()
    assert response.status_code in (500, 503)


async def test_a_body_that_no_deployment_can_answer_closes_none_of_them(stack: Any) -> None:
    async def brittle(engine: Any, request: Any, writer: Any) -> None:
        bad = "bad" in request.json().get("user", "")
        engine.answer(
            writer, {"error": {"message": "boom"}} if bad else engine.completion(request), 500 if bad else 200
        )

    for engine in stack.engines:
        engine.script = brittle
    assert [(await stack.chat(user="bad")).status_code for _ in range(20)] == [500] * 20
    stack.gateway.tend()
    assert [(await stack.chat()).status_code for _ in range(4)] == [200] * 4
    assert all(len(engine.requests) == 22 for engine in stack.engines)


async def test_a_deployment_that_fails_what_another_answers_is_left_alone(stack: Any) -> None:
    async def broken(engine: Any, request: Any, writer: Any) -> None:
        engine.answer(writer, {"error": {"message": "boom"}}, 500)

    stack.engine.script = broken
    assert [(await stack.chat()).status_code for _ in range(30)] == [200] * 30
    stack.gateway.tend()
    stack.engine.requests.clear()
    assert [(await stack.chat()).status_code for _ in range(6)] == [200] * 6
    assert stack.engine.requests == []


async def test_all_deployments_gone_is_a_gateway_error(stack: Any) -> None:
    for engine in stack.engines:
        await engine.stop()
    response = await stack.chat()
    assert response.status_code == 502 and response.json()["error"]["code"] == "upstream_unreachable"
    [row] = await stack.rows(1)
    assert row["outcome"] == "failed" and row["error_code"] == "upstream_unreachable"


async def test_client_errors_of_the_engine_are_passed_on_unchanged(stack: Any) -> None:
    async def picky(engine: Any, request: Any, writer: Any) -> None:
        engine.answer(writer, {"error": {"message": "context too long", "extra": 1}}, 400)

    for engine in stack.engines:
        engine.script = picky
    response = await stack.chat()
    assert response.status_code == 400 and response.json() == {"error": {"message": "context too long", "extra": 1}}
    assert sum(len(engine.requests) for engine in stack.engines) == 1


async def test_a_client_that_leaves_stops_the_engine_at_once(stack: Any) -> None:
    """That needs no word of the engine: it is silent when its client leaves, and two chunks later it knows."""
    writers: list[asyncio.StreamWriter] = []
    over = asyncio.Event()

    async def one_chunk(engine: Any, request: Any, writer: asyncio.StreamWriter) -> None:
        engine.begin_stream(writer)
        engine.event(writer, {"choices": [{"index": 0, "delta": {"content": "t"}}]})
        writers.append(writer)
        await over.wait()

    for engine in stack.engines:
        engine.script = one_chunk
    async with stack.client.stream(
        "POST", "/v1/chat/completions", json={"model": "llama", "messages": [], "stream": True}, headers=stack.headers()
    ) as response:
        async for _ in response.aiter_raw():
            break
    [row] = await stack.rows(1)
    [writer] = writers
    for _ in range(2):
        stack.engine.event(writer, {"choices": []})
        with contextlib.suppress(ConnectionError):
            await writer.drain()
    await until(writer.transport.is_closing)
    over.set()
    assert row["outcome"] == "cancelled" and row["usage_source"] == "counted" and row["wasted_tokens"] >= 1


async def test_a_client_that_leaves_after_the_usage_pays_for_it(stack: Any) -> None:
    async def all_but_done(engine: Any, request: Any, writer: Any) -> None:
        engine.begin_stream(writer)
        engine.event(writer, {"choices": [], "usage": {"prompt_tokens": 16_000, "completion_tokens": 500}})
        await writer.drain()
        await asyncio.sleep(5)

    for engine in stack.engines:
        engine.script = all_but_done
    asked = {"model": "llama", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
    async with stack.client.stream("POST", "/v1/chat/completions", json=asked, headers=stack.headers()) as response:
        async for _ in response.aiter_raw():
            break
    [row] = await stack.rows(1)
    assert (row["outcome"], row["usage_source"]) == ("cancelled", "upstream")
    assert (row["input_tokens"], row["output_tokens"]) == (16_000, 500)


async def test_text_without_usage_is_counted(stack: Any) -> None:
    async def silent(engine: Any, request: Any, writer: Any) -> None:
        engine.answer(writer, {"choices": [{"message": {"content": "x" * 4_000}}]})

    for engine in stack.engines:
        engine.script = silent
    assert (await stack.chat()).status_code == 200
    [row] = await stack.rows(1)
    assert row["usage_source"] == "counted" and row["output_tokens"] >= 1_000 and row["cost_nanos"] > 0


async def test_an_answer_that_breaks_off_is_seen_as_broken(stack: Any) -> None:
    async def cut(engine: Any, request: Any, writer: Any) -> None:
        engine.begin_stream(writer)
        engine.event(writer, {"choices": [{"delta": {"content": "x"}}]})
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.transport.abort()

    for engine in stack.engines:
        engine.script = cut
    request = json.dumps({"model": "llama", "messages": [], "stream": True}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-test-1\r\n"
    received = await stack.raw(head.encode() + b"Content-Length: %d\r\n\r\n" % len(request) + request)
    assert b'"content":"x"' in received and not received.endswith(b"0\r\n\r\n")
    [row] = await stack.rows(1)
    assert row["outcome"] == "cut" and row["usage_source"] == "counted" and row["output_tokens"] == 1
    assert sum(d.failures for d in stack.gateway.policy.snapshot.deployments.values()) == 1


async def test_internal_headers_and_the_key_do_not_reach_the_engine(stack: Any) -> None:
    headers = stack.headers() | {"x-foundry-source": "live", "x-internal-user": "root", "traceparent": "00-1-2-03"}
    response = await stack.client.post("/v1/chat/completions", json={"model": "llama"}, headers=headers)
    every = [request.headers for engine in stack.engines for request in engine.requests]
    [seen] = [found for found in every if found.get("x-request-id") == response.headers["x-request-id"]]
    assert "sk-test-1" not in str(seen) and "x-internal-user" not in seen and "x-foundry-source" not in seen
    assert seen["traceparent"] == "00-1-2-03"


async def test_a_form_passes_with_its_file_unchanged(stack: Any) -> None:
    for deployment in stack.config["endpoints"][0]["tiers"][0]:
        deployment["model"] = "whisper-large"
    await stack.reconfigure()
    sound = bytes(range(256)) * 400
    response = await stack.client.post(
        "/v1/audio/transcriptions",
        files={"file": ("a.wav", sound, "audio/wav")},
        data={"model": "llama", "language": "de"},
        headers=stack.headers(),
    )
    assert response.status_code == 200
    engine = stack.engines[0] if stack.engines[0].requests else stack.engines[1]
    body = engine.requests[0].body
    assert sound in body and b"whisper-large" in body and b'name="language"' in body


@pytest.fixture
def minute_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of gateway and control plane, moved on to the next full minute: no other begins during a test."""
    ahead_ns = MINUTE_NS - time.time_ns() % MINUTE_NS
    monkeypatch.setattr(clock, "time", SimpleNamespace(time_ns=lambda: time.time_ns() + ahead_ns))


async def test_limits_hold_and_say_so(minute_begins: None, stack: Any) -> None:
    stack.config["keys"][0]["limits"] = {"requests_per_minute": 5}
    await stack.reconfigure()
    statuses = [(await stack.chat()).status_code for _ in range(8)]
    assert statuses.count(200) == 5 and statuses.count(429) == 3
    response = await stack.chat()
    assert response.json()["error"]["code"] == "rate_limit_exceeded" and int(response.headers["retry-after"]) >= 1


async def test_a_budget_is_never_overspent(stack: Any) -> None:
    cost = 11 * 10 + 3 * 30
    stack.config["keys"][0]["limits"] = {"budget_nanos": 30 * cost}
    await stack.reconfigure()
    answers = await asyncio.gather(*(stack.chat(max_tokens=5) for _ in range(60)))
    answers += [await stack.chat(max_tokens=5) for _ in range(10)]
    assert {a.status_code for a in answers} == {200, 429}
    rows = await stack.rows(70)
    spent = sum(row["cost_nanos"] for row in rows)
    assert 0 < spent <= 30 * cost


async def test_a_budget_fails_closed_without_the_control_plane(stack: Any) -> None:
    stack.config["keys"][0]["limits"] = {"budget_nanos": 10**9}
    await stack.reconfigure()
    stack.stand_in.away = True
    response = await stack.chat(max_tokens=5)
    assert response.status_code == 503 and response.json()["error"]["code"] == "budget_unavailable"
    stack.stand_in.away = False
    for _ in range(100):
        if (await stack.chat(max_tokens=5)).status_code == 200:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the budget never came back")


async def test_money_spent_is_told_before_its_rows_are_uploaded(stack: Any) -> None:
    stack.config["keys"][0]["limits"] = {"budget_nanos": 10**9}
    await stack.reconfigure()
    handle, told = stack.stand_in.escrow.handle, {}

    def hear(requests: Any, now_ms: int) -> Any:
        told.update({request.lease_id: request.spent for request in requests})
        return handle(requests, now_ms)

    stack.stand_in.escrow.handle = hear
    for _ in range(3):
        assert (await stack.chat(max_tokens=5)).status_code == 200
    assert sum(told.values()) < 3 * 200
    rows = await stack.rows(3)
    assert sum(told.values()) == sum(row["cost_nanos"] for row in rows) == 3 * 200


async def test_rows_wait_on_disk_while_the_control_plane_is_away(stack: Any) -> None:
    stack.stand_in.away = True
    for _ in range(3):
        assert (await stack.chat()).status_code == 200
    stack.gateway.meter.seal()
    assert not await stack.gateway.meter.flush_one() and stack.stand_in.rows() == []
    stack.stand_in.away = False
    assert len({row["event_id"] for row in await stack.rows(3)}) == 3


async def test_a_broken_config_is_refused_and_the_last_good_one_serves(stack: Any) -> None:
    assert not stack.gateway.take(b'{"version": 2, "keys": [{"id": 3}], "endpoints": []}')
    assert not stack.gateway.take(b"\x00")
    assert (await stack.chat()).status_code == 200


async def test_metrics_are_for_the_gateway_token_only(stack: Any) -> None:
    await stack.chat()
    assert (await stack.client.get("/metrics", headers=stack.headers())).status_code == 401
    response = await stack.client.get("/metrics", headers={"authorization": "Bearer gateway-token"})
    assert 'foundry_gateway_requests_total{endpoint="llama",status="200",outcome="ok"} 1' in response.text


async def test_a_sleeping_deployment_is_woken_once_and_the_requests_wait(stack: Any) -> None:
    tier = stack.config["endpoints"][0]["tiers"][0]
    for deployment in tier:
        deployment["asleep"] = True
    await stack.change_endpoint(policy={"hold_s": 20, "hold_queue": 3})
    asking = [asyncio.create_task(stack.chat()) for _ in range(5)]
    for _ in range(200):
        await asyncio.sleep(0.01)
        if sum(task.done() for task in asking) == 2 and stack.stand_in.escrow.writes:
            break
    refused = [task.result() for task in asking if task.done()]
    assert [r.status_code for r in refused] == [503, 503] and all(r.headers["retry-after"] for r in refused)
    wakes = [name for name in stack.stand_in.escrow.committed if name[1] == "wake"]
    assert [name[0] for name in wakes] == ["deployment:dep_0"]
    assert not any(engine.requests for engine in stack.engines)
    await stack.reconfigure()  # those who wait look again, and order nothing that would bar the next order
    await asyncio.sleep(0.01)
    assert stack.gateway.policy.book.scopes["deployment:dep_0", "wake"].lease.held == 0
    for deployment in tier:
        deployment["asleep"] = False
    await stack.reconfigure()
    assert sorted([(await task).status_code for task in asking]) == [200, 200, 200, 503, 503]


async def test_provider_credentials_are_sealed_until_they_are_sent(stack: Any) -> None:
    stack.config["credentials"] = [{"ref": "openai", "sealed": seal_for("gateway-token", "openai", "sk-provider")}]
    for deployment in stack.config["endpoints"][0]["tiers"][0]:
        deployment["credential_ref"] = "openai"
    await stack.reconfigure()
    assert (await stack.chat()).status_code == 200
    [request] = [r for engine in stack.engines for r in engine.requests]
    assert request.headers["authorization"] == "Bearer sk-provider"
    assert b"sk-provider" not in stack.stand_in.document
    stack.config["credentials"] = [{"ref": "openai", "sealed": seal_for("another-token", "openai", "sk-provider")}]
    await stack.reconfigure()
    response = await stack.chat()
    assert response.status_code == 503 and response.json()["error"]["code"] == "no_deployment"


async def test_fallbacks_and_adapters(stack: Any) -> None:
    url = f"http://127.0.0.1:{stack.engines[1].port}"
    spare = {
        "name": "spare",
        "tiers": [[{"id": "dep_s", "url": url, "model": "small"}]],
        "adapters": {"tuned": "lora-7"},
    }
    stack.config["endpoints"].append(spare)
    stack.config["endpoints"][0]["tiers"] = [[{"id": "dep_x", "url": "http://127.0.0.1:9", "model": "llama"}]]
    await stack.change_endpoint(policy={"fallbacks": ["spare"]})
    assert (await stack.chat()).status_code == 200
    assert (await stack.chat(model="tuned")).status_code == 200
    assert [r.json()["model"] for r in stack.engines[1].requests] == ["small", "lora-7"]
    rows = await stack.rows(2)
    assert (rows[0]["endpoint"], rows[0]["deployment_id"], rows[0]["retries"]) == ("llama", "dep_s", 1)


async def test_a_closed_endpoint_serves_nobody_as_a_fallback(stack: Any) -> None:
    deployments = [
        {"id": "dep_t", "url": f"http://127.0.0.1:{stack.engine.port}", "model": "m", "weight": w} for w in (1, 2)
    ]
    stack.config["endpoints"].append({"name": "torn", "tiers": [deployments]})
    stack.config["endpoints"][0]["tiers"] = [[{"id": "dep_x", "url": "http://127.0.0.1:9", "model": "llama"}]]
    await stack.change_endpoint(policy={"fallbacks": ["torn"]})
    assert (await stack.chat()).status_code == 502
    assert stack.engine.requests == []
