"""The contract of stages (gateway.core.stage), against both forms of the gateway."""

import asyncio
import json
from typing import Any

import pytest
from gateway.core.problems import Rejected
from gateway.core.stage import AnswerHead, Outgoing, Stage, StageMaker

from .conftest import KEY, Engine, EngineRequest, Stack

SEEN: list["Recorder"] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()


async def use(stack: Stack, *makers: StageMaker) -> None:
    stack.gateway.policy.stage_kinds = [lambda endpoint, make=make: make for make in makers]
    await stack.reconfigure()


class Recorder(Stage):
    """Observes, changes nothing."""

    def __init__(self, exchange: Any) -> None:
        super().__init__(exchange)
        self.events: list[str] = []
        self.body = b""
        SEEN.append(self)

    async def request(self) -> bool:
        self.events.append("request")
        return False

    def outgoing(self, request: Outgoing) -> None:
        self.events.append("outgoing")
        request.headers.append((b"x-seen", b"yes"))

    def head(self, head: AnswerHead) -> None:
        self.events.append(f"head {head.status}")
        super().head(head)

    def data(self, data: bytes) -> None:
        self.body += data
        super().data(data)

    def end(self) -> None:
        self.events.append("end")
        super().end()

    def over(self, outcome: str) -> None:
        self.events.append(outcome)


class Shout(Stage):
    """Makes every body longer, so that any length that was kept is wrong."""

    async def request(self) -> bool:
        self.exchange.body = self.exchange.body.replace(b"hi", b"HI THERE")
        return False

    def data(self, data: bytes) -> None:
        self.down.data(data.replace(b"hello", b"hello hello"))


class Canned(Stage):
    """Answers at once."""

    async def request(self) -> bool:
        self.pipeline.outcome = "cached"
        if self.exchange.call and self.exchange.call.stream:
            self.pipeline.spawn(self.replay())
        else:
            self.down.head(AnswerHead(200, [(b"content-type", b"application/json")]))
            self.down.data(b'{"canned":true}')
            self.down.end()
        return True

    async def replay(self) -> None:
        self.down.head(AnswerHead(200, [(b"content-type", b"text/event-stream")]))
        for number in range(3):
            await asyncio.sleep(0)
            self.down.data(b"data: %d\n\n" % number)
        self.down.end()


class Slow(Stage):
    """Waits on both sides: for the request, and for each piece of the answer."""

    def __init__(self, exchange: Any) -> None:
        super().__init__(exchange)
        self.kept: list[bytes] = []
        self.ended = False
        self.working = False

    async def request(self) -> bool:
        await asyncio.sleep(0.01)
        return False

    def data(self, data: bytes) -> None:
        self.kept.append(data)
        self._work()

    def end(self) -> None:
        self.ended = True
        self._work()

    def _work(self) -> None:
        if not self.working:
            self.working = True
            self.pipeline.hold()
            self.pipeline.spawn(self._scan())

    async def _scan(self) -> None:
        while self.kept:
            await asyncio.sleep(0.001)
            self.down.data(self.kept.pop(0))
        self.working = False
        if self.ended:
            self.down.end()
        self.pipeline.free()


class Refuse(Stage):
    async def request(self) -> bool:
        raise Rejected("content_blocked")


class RefuseAnswer(Stage):
    def head(self, head: AnswerHead) -> None:
        pass

    def end(self) -> None:
        self.down.fail(Rejected("content_blocked"))

    def data(self, data: bytes) -> None:
        pass


class EndEarly(Stage):
    def data(self, data: bytes) -> None:
        self.pipeline.outcome, self.pipeline.error_code = "rejected", "content_blocked"
        self.down.data(b"data: stop\n\n")
        self.down.end()


async def test_an_observer_sees_everything_once(stack: Stack) -> None:
    await use(stack, Recorder)
    plain = await stack.chat()
    assert plain.json()["vendor_extra"] == {"z": [1, 2]}
    streamed = await stack.chat(stream=True)
    assert streamed.content.endswith(b"data: [DONE]\n\n") and b'"usage"' not in streamed.content
    first, second = await stack.rows(2)
    assert [first["input_tokens"], second["output_tokens"], second["usage_source"]] == [11, 3, "upstream"]
    for recorder, answer in zip(SEEN, (plain, streamed), strict=True):
        assert recorder.events == ["request", "outgoing", "head 200", "end", "ok"]
        assert recorder.body == answer.content
    assert all(request.headers["x-seen"] == "yes" for engine in stack.engines for request in engine.requests)


async def test_bodies_may_change_their_length(stack: Stack) -> None:
    await use(stack, Recorder, Shout)
    answer = await stack.chat()
    assert answer.json()["choices"][0]["message"]["content"] == "hello hello"
    [request] = [request for engine in stack.engines for request in engine.requests]
    assert request.json()["messages"][0]["content"] == "HI THERE"
    assert SEEN[0].body == answer.content  # answers pass in reverse
    assert (await stack.rows(1))[0]["output_tokens"] == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stage_answers_without_a_deployment(stack: Stack, stream: bool) -> None:
    await use(stack, Recorder, Canned)
    answer = await stack.chat(stream=stream)
    assert answer.content == (b"data: 0\n\ndata: 1\n\ndata: 2\n\n" if stream else b'{"canned":true}')
    assert answer.headers["x-request-id"]
    [row] = await stack.rows(1)
    assert (row["outcome"], row["status"], row["cost_nanos"], row["deployment_id"]) == ("cached", 200, 0, "")
    assert SEEN[0].events == ["request", "head 200", "end", "cached"]
    assert not any(engine.requests for engine in stack.engines)
    assert (await stack.chat(stream=stream)).content == answer.content  # the connection lives on


@pytest.mark.parametrize("stream", [False, True])
async def test_stages_may_wait_on_both_sides(stack: Stack, stream: bool) -> None:
    raw = (await stack.chat(stream=stream)).content
    await use(stack, Recorder, Slow)
    for _ in range(3):  # the deployment's connection is usable again afterwards
        assert (await stack.chat(stream=stream)).content == raw
    rows = await stack.rows(4)
    assert {(row["outcome"], row["output_tokens"], row["usage_source"]) for row in rows} == {("ok", 3, "upstream")}
    assert stack.engines[0].connections + stack.engines[1].connections <= 2


async def test_a_request_is_refused_by_a_stage(stack: Stack) -> None:
    await use(stack, Recorder, Refuse)
    answer = await stack.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_blocked")
    [row] = await stack.rows(1)
    assert (row["outcome"], row["error_code"], row["cost_nanos"]) == ("rejected", "content_blocked", 0)
    assert SEEN[0].events == ["request", "rejected"]


async def test_an_answer_is_refused_before_its_head_went_out(stack: Stack) -> None:
    await use(stack, Recorder, RefuseAnswer)
    answer = await stack.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_blocked")
    [row] = await stack.rows(1)  # the tokens were made, so they are metered
    assert (row["outcome"], row["output_tokens"], row["usage_source"]) == ("rejected", 3, "upstream")


async def test_a_stream_ends_early_and_the_engine_is_dropped(stack: Stack) -> None:
    for engine in stack.engines:
        engine.tokens, engine.pause_s = 10_000, 0.001
    await use(stack, EndEarly)
    answer = await stack.chat(stream=True)
    assert answer.content == b"data: stop\n\n"
    [row] = await stack.rows(1)
    assert (row["outcome"], row["error_code"], row["status"]) == ("rejected", "content_blocked", 200)
    assert row["usage_source"] == "counted"
    await asyncio.sleep(0.05)
    assert sum(engine.chunks_sent for engine in stack.engines) < 1000


async def test_stages_hear_of_a_client_that_left(stack: Stack) -> None:
    for engine in stack.engines:
        engine.tokens, engine.pause_s = 10_000, 0.001
    await use(stack, Recorder)
    body = json.dumps({"model": "llama", "messages": [], "stream": True})
    async with stack.client.stream("POST", "/v1/chat/completions", content=body, headers=stack.headers()) as answer:
        await answer.aiter_raw().__anext__()
    [row] = await stack.rows(1)
    assert row["outcome"] == "cancelled" and SEEN[0].events[-1] == "cancelled"


async def test_stages_hear_of_an_engine_that_broke_off(stack: Stack) -> None:
    async def half(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        engine.begin_stream(writer)
        engine.event(writer, {"choices": []})
        await writer.drain()
        writer.transport.abort()

    for engine in stack.engines:
        engine.script = half
    await use(stack, Recorder)
    body = json.dumps({"model": "llama", "messages": [], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    received = await stack.raw(head.encode() + body)
    assert b"chat.completion.chunk" in received and not received.endswith(b"0\r\n\r\n")
    assert (await stack.rows(1))[0]["outcome"] == "cut" and SEEN[0].events[-1] == "cut"


async def test_a_retry_shows_the_stages_one_answer_only(stack: Stack) -> None:
    async def fail(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        engine.answer(writer, {"error": "no"}, 503)

    stack.engines[0].script = fail
    await use(stack, Recorder)
    for _ in range(2):
        assert (await stack.chat()).status_code == 200
    heads = [[event for event in recorder.events if event.startswith("head")] for recorder in SEEN]
    assert heads == [["head 200"], ["head 200"]]
    assert sorted(recorder.events.count("outgoing") for recorder in SEEN) in ([1, 2], [2, 2])
