"""A whole gateway on loopback: stand-in control plane, scripted engines, and either form of the gateway in front."""

import asyncio
import contextlib
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from gateway.reference import create_app
from gateway.settings import Settings
from gateway.standin import StandIn

KEY = "sk-test-1"
OTHER_KEY = "sk-test-2"
TOKEN = "gateway-token"


class EngineRequest:
    """What reached an engine, byte for byte."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path = path
        self.headers = headers
        self.body = body

    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


Script = Callable[["Engine", EngineRequest, asyncio.StreamWriter], Awaitable[None]]


class Engine:
    """A raw HTTP/1.1 server whose answers are scripted; speaks like vLLM unless told otherwise."""

    def __init__(self) -> None:
        self.requests: list[EngineRequest] = []
        self.script: Script = Engine.talk
        self.chunks_sent = 0
        self.tokens = 3
        self.pause_s = 0.0
        self.usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
        self.connections = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", getattr(self, "port", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self._writers: set[asyncio.StreamWriter] = set()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                request = await self._read(reader)
                self.requests.append(request)
                await self.script(self, request, writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> EngineRequest:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:] if line)}
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        else:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        return EngineRequest(head[0].split(" ")[1], headers, body)

    async def talk(self, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        if b'"stream":true' in request.body.replace(b" ", b""):
            await self.stream(request, writer)
        else:
            self.answer(writer, self.completion(request))

    def completion(self, request: EngineRequest) -> dict[str, Any]:
        message = {"role": "assistant", "content": "hello", "reasoning_content": "because"}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
        return {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
            "usage": self.usage, "prompt_logprobs": None, "kv_transfer_params": {"a": 1}, "vendor_extra": {"z": [1, 2]},
        }  # fmt: skip

    def answer(self, writer: asyncio.StreamWriter, body: Any, status: int = 200, more: str = "") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{more}\r\n"
        writer.write(head.encode() + data)

    async def stream(self, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        self.begin_stream(writer)
        for number in range(self.tokens):
            self.event(writer, {"choices": [{"index": 0, "delta": {"content": f"t{number}"}}]})
            self.chunks_sent += 1
            await writer.drain()
            await asyncio.sleep(self.pause_s)
        if request.json().get("stream_options", {}).get("include_usage"):
            self.event(writer, {"choices": [], "usage": self.usage})
        self.chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")

    def begin_stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

    def event(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", **body}
        self.chunk(writer, b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")

    def chunk(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is sure to come: long, for a machine that has much else to do."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it never came to that")


class QuietServer(uvicorn.Server):
    """Stops at once: the usual one looks every tenth of a second whether it should, then waits as long again."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.told_to_stop = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.told_to_stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            connection.shutdown()
        for _ in range(3):  # turns of the event loop: what idles is gone by then
            await asyncio.sleep(0)
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
            return
        for server in self.servers:
            server.close()
        await self.lifespan.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[int]:
    """Run an ASGI app on a free loopback port in this event loop."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=1)
    server = QuietServer(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            task.result()
        await asyncio.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.told_to_stop.set()
        await task


class Stack:
    """Everything a test needs of a running gateway."""

    def __init__(self, stand_in: StandIn, engines: list[Engine], config: dict[str, Any]) -> None:
        self.stand_in = stand_in
        self.engines = engines
        self.config = config
        self.port = 0
        self.gateway: Any = None
        self.hot: Any = None
        self.client: httpx.AsyncClient

    @property
    def engine(self) -> Engine:
        return self.engines[0]

    def headers(self, key: str = KEY) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    async def chat(self, key: str = KEY, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
        body = {"model": "llama", "messages": [{"role": "user", "content": "hi"}], **fields}
        return await self.client.post(path, json=body, headers=self.headers(key))

    async def reconfigure(self, **changes: Any) -> None:
        """Change the config and have the gateway take it at once."""
        self.config.update(changes)
        self.stand_in.put_config(self.config)
        assert self.gateway.take(self.stand_in.document)

    async def change_endpoint(self, **changes: Any) -> None:
        self.config["endpoints"][0].update(changes)
        await self.reconfigure()

    async def rows(self, count: int) -> list[dict[str, Any]]:
        """Wait until ``count`` requests are metered, upload, and return what arrived."""
        for _ in range(400):
            if self.gateway.meter.rows >= count:
                break
            await asyncio.sleep(0.005)
        self.gateway.meter.seal()
        while self.gateway.meter.waiting:
            await self.gateway.meter.flush_one()
        rows = self.stand_in.rows()
        assert len(rows) == count, rows
        return rows

    async def raw(self, data: bytes, timeout_s: float = 2.0) -> bytes:
        """Send bytes, read until the gateway closes or the time is over."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        received = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(timeout_s):
                while part := await reader.read(65536):
                    received += part
        writer.close()
        return received


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def base_config(engines: list[Engine]) -> dict[str, Any]:
    tier = [{"id": f"dep_{n}", "url": f"http://127.0.0.1:{e.port}", "model": "llama"} for n, e in enumerate(engines)]
    return {
        "version": 1,
        "keys": [
            {"id": "key_1", "sha256": digest(KEY), "project_id": "prj_1"},
            {"id": "key_2", "sha256": digest(OTHER_KEY), "project_id": "prj_2", "models": ["other"]},
        ],
        "endpoints": [
            {"name": "llama", "tiers": [tier], "price": {"input_nanos_per_token": 10, "output_nanos_per_token": 30}},
            {"name": "other", "tiers": [tier], "project_ids": ["prj_2"]},
        ],
    }


@contextlib.asynccontextmanager
async def reference_form(settings: Settings) -> AsyncIterator[tuple[Any, int, Any]]:
    app = create_app(settings)
    async with serving(app) as port:
        yield app.state.gateway, port, None


@contextlib.asynccontextmanager
async def hot_form(settings: Settings) -> AsyncIterator[tuple[Any, int, Any]]:
    from gateway.server import Server

    async with Server(settings) as server:
        yield server.gateway, server.port, server.hot


FORMS = {"reference": reference_form, "hot": hot_form}


@pytest.fixture(params=list(FORMS))
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve() -> Callable[[Any], contextlib.AbstractAsyncContextManager[int]]:
    """``async with serve(app) as port``: any other server that a test needs."""
    return serving


@pytest.fixture
def gateway_settings() -> dict[str, Any]:
    """Settings that differ from the suite's; modules override it."""
    return {}


@pytest.fixture
async def stack(form: str, tmp_path: Path, gateway_settings: dict[str, Any]) -> AsyncIterator[Stack]:
    engines = [Engine(), Engine()]
    for engine in engines:
        await engine.start()
    config = base_config(engines)
    stand_in = StandIn(config, TOKEN)
    stack = Stack(stand_in, engines, config)
    async with serving(stand_in.app()) as control_port:
        usual: dict[str, Any] = {
            "control_plane_url": f"http://127.0.0.1:{control_port}", "gateway_token": TOKEN, "spool_dir": tmp_path,
            "gateway_id": "gw-test", "port": 0, "poll_s": 30.0, "flush_s": 30.0, "drain_s": 1.0,
        }  # fmt: skip
        settings = Settings(**usual | gateway_settings)
        async with (
            FORMS[form](settings) as (stack.gateway, stack.port, stack.hot),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.port}", timeout=10) as stack.client,
        ):
            yield stack
    for engine in engines:
        await engine.stop()
