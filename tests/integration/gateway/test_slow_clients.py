"""A client that does not keep up must not harm those who use the deployment's connection after it."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from .conftest import KEY, Engine, EngineRequest, Stack


class Clogged:
    """A client's transport whose buffer is full after every write."""

    def __init__(self, front: Any) -> None:
        self._front = front
        self._transport = front.transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._transport.write(data)
        self._front.pause_writing()


@pytest.mark.parametrize("form", ["hot"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_connection_goes_back_to_its_pool_readable(stack: Stack, stream: bool) -> None:
    async def script(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        for front in stack.hot.fronts:
            if b"x-slow" in request.body:
                front.transport = Clogged(front)
        await engine.talk(request, writer)

    for engine in stack.engines:
        engine.script = script
    body = json.dumps({"model": "llama", "messages": [], "stream": stream, "user": "x-slow"})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    for _ in stack.engines:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write((head + body).encode())
        received = b""
        while not received.endswith(b"0\r\n\r\n" if stream else b"}"):
            with contextlib.suppress(TimeoutError):
                received += await asyncio.wait_for(reader.read(65536), 0.01)
            for front in stack.hot.fronts:
                front.resume_writing()
        writer.close()
    async with asyncio.timeout(5):
        for _ in range(4):
            assert (await stack.chat()).status_code == 200


@pytest.mark.parametrize("form", ["hot"])
async def test_nothing_is_answered_while_the_client_is_behind(stack: Stack) -> None:
    """Refusals are made at once, without a key: a client that reads none of them must not fill the memory."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(head)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
    [front] = [front for front in stack.hot.fronts if front.token == b"" and not front.transport.is_closing()]
    front.pause_writing()
    writer.write(head * 3)
    for _ in range(1000):
        if not front.transport.is_reading():
            break
        await asyncio.sleep(0.001)
    assert not front.transport.is_reading()
    front.resume_writing()
    async with asyncio.timeout(5):
        for _ in range(3):
            assert b"HTTP/1.1 401 " in await reader.readuntil(b"\r\n\r\n")
    writer.close()
