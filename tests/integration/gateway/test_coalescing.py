"""Coalescing on the hot path: a busy process sends fewer pieces, the client reads the same."""

import asyncio
from typing import Any

import pytest
from gateway.core.coalesce import PROMPT_EVENTS, Load

from .conftest import KEY, Engine, EngineRequest, Stack

EVENTS = 40
ASK = b'{"model":"llama","stream":true,"messages":[]}'


class Busy(Load):
    """A core that has no time left."""

    def pressure(self) -> float:
        return 1.0


@pytest.fixture
def form() -> str:
    return "hot"


@pytest.fixture
async def busy(stack: Stack) -> Stack:
    async def talk(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        engine.begin_stream(writer)
        for number in range(EVENTS):
            engine.event(writer, {"choices": [{"index": 0, "delta": {"content": f"t{number} "}}]})
            await writer.drain()
            for _ in range(5):  # let the gateway see each event alone
                await asyncio.sleep(0)
        engine.chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")

    for engine in stack.engines:
        engine.script = talk
    stack.hot.load, stack.hot.pressure = Busy(), 1.0
    return stack


async def read(stack: Stack) -> list[bytes]:
    """The pieces in which an answer arrives, as written by the gateway."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    writer.write(f"{head}Content-Length: {len(ASK)}\r\n\r\n".encode() + ASK)
    pieces = []
    async with asyncio.timeout(5):
        while not pieces or not pieces[-1].endswith(b"0\r\n\r\n"):
            pieces.append(await reader.read(1 << 20))
    writer.close()
    return pieces


def text(pieces: list[bytes]) -> list[str]:
    return [part.split('"')[0] for part in b"".join(pieces).decode().split('"content":"')[1:]]


async def test_without_the_policy_every_event_is_passed_on_alone(busy: Stack) -> None:
    pieces = await read(busy)
    assert len(pieces) > EVENTS / 2
    assert text(pieces) == [f"t{number} " for number in range(EVENTS)]


@pytest.mark.parametrize("guardrails", [[], [{"id": "g", "kind": "deny", "patterns": ["zzz"]}]])
async def test_a_busy_process_shares_writes(busy: Stack, guardrails: list[dict[str, Any]]) -> None:
    await busy.change_endpoint(policy={"coalesce_ms": 1000, "guardrails": guardrails})
    pieces = await read(busy)
    assert len(pieces) <= PROMPT_EVENTS + 2
    assert text(pieces) == [f"t{number} " for number in range(EVENTS)]
    [row] = await busy.rows(1)
    assert row["outcome"] == "ok" and row["output_tokens"] >= EVENTS


async def test_an_idle_process_does_not(busy: Stack) -> None:
    busy.hot.load, busy.hot.pressure = Load(), 0.0
    await busy.change_endpoint(policy={"coalesce_ms": 1000})
    assert len(await read(busy)) > EVENTS / 2


async def test_a_key_may_say_otherwise(busy: Stack) -> None:
    busy.config["keys"][0]["coalesce_ms"] = 0
    await busy.change_endpoint(policy={"coalesce_ms": 1000})
    assert len(await read(busy)) > EVENTS / 2


async def test_a_stream_that_breaks_off_loses_nothing_that_was_said(busy: Stack) -> None:
    async def break_off(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        engine.begin_stream(writer)
        for number in range(20):
            engine.event(writer, {"choices": [{"index": 0, "delta": {"content": f"t{number} "}}]})
        await writer.drain()
        writer.close()

    for engine in busy.engines:
        engine.script = break_off
    await busy.change_endpoint(policy={"coalesce_ms": 1000})
    request = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    received = await busy.raw(f"{request}Content-Length: {len(ASK)}\r\n\r\n".encode() + ASK)
    assert text([received]) == [f"t{number} " for number in range(20)]
    assert not received.endswith(b"0\r\n\r\n")
