"""Forms with files on the hot path: large ones are passed on while they come, and never hide another model."""

import asyncio
import contextlib
import io
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from gateway.core.multipart import FormReader, parse
from gateway.core.problems import Rejected
from hypothesis import HealthCheck, given
from hypothesis import settings as fewer
from hypothesis import strategies as st
from werkzeug.formparser import MultiPartParser

from .conftest import until

HEAD = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-test-1\r\n"
CONTENT_TYPE = b"multipart/form-data; boundary=XYZ"
SECOND_MODEL = b'--XYZ\r\nContent-Disposition: form-data; name="model"\r\n\r\nother\r\n'
END = b"--XYZ--\r\n"


def field(name: str, value: bytes) -> bytes:
    return b'--XYZ\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)


def file(content: bytes) -> bytes:
    head = b'--XYZ\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    return head + content + b"\r\n"


def whole(content: bytes, model: bytes = b"llama") -> bytes:
    return field("model", model) + file(content) + END


def head(length: int | None) -> bytes:
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return HEAD + b"Content-Type: %b\r\n%b\r\n\r\n" % (CONTENT_TYPE, framing)


def chunks(body: bytes, size: int) -> bytes:
    parts = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


Speak = Callable[["SlowEngine", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class SlowEngine:
    """A deployment that reads a body as it is told, and knows what it has read so far."""

    def __init__(self, speak: Speak) -> None:
        self.speak = speak
        self.head = b""
        self.body = bytearray()
        self.left = asyncio.Event()
        self.arrived = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
            self.head = await reader.readuntil(b"\r\n\r\n")
            self.arrived.set()
            await self.speak(self, reader, writer)
        self.left.set()
        writer.close()

    async def read_all(self, reader: asyncio.StreamReader) -> None:
        """Until the body is whole or the connection gone."""
        declared = [line for line in self.head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if declared:
            missing = int(declared[0].split(b":")[1])
            while missing and (part := await reader.read(min(65536, missing))):
                self.body += part
                missing -= len(part)
            return
        while size := int(await reader.readline(), 16):
            self.body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)


async def obedient(engine: SlowEngine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await engine.read_all(reader)
    answer = json.dumps({"text": "hello", "usage": {"input_tokens": 5, "output_tokens": 2}}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer))
    writer.write(answer)
    await writer.drain()


@contextlib.asynccontextmanager
async def deployed(stack: Any, *speaks: Speak, model: str = "llama") -> AsyncIterator[list[SlowEngine]]:
    """Replace the stack's engines."""
    engines = [SlowEngine(speak) for speak in speaks]
    servers = [await asyncio.start_server(engine.serve, "127.0.0.1", 0) for engine in engines]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    tiers = [[{"id": f"slow_{p}", "url": f"http://127.0.0.1:{p}", "model": model}] for p in ports]
    await stack.change_endpoint(tiers=tiers)
    yield engines
    for server in servers:
        server.close()


@pytest.fixture
def gateway_settings() -> dict[str, Any]:
    return {"stream_body_bytes": 100_000, "max_body_bytes": 32 << 20}


hot = pytest.mark.parametrize("form", ["hot"], indirect=True)


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(60):
        return await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("model_first", [True, False])
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("upstream_model", ["llama", "openai/whisper-large"])
async def test_a_large_form_arrives_unchanged(
    stack: Any, model_first: bool, declared: bool, upstream_model: str
) -> None:
    sound = bytes(range(256)) * 4000
    parts = [field("model", b"llama"), file(sound)]
    body = b"".join(parts if model_first else reversed(parts)) + field("language", b"de") + END
    async with deployed(stack, obedient, model=upstream_model) as [engine]:
        _, writer = reader, _ = await asyncio.open_connection("127.0.0.1", stack.port)
        for _ in range(2):
            writer.write(head(len(body)) + body if declared else head(None) + chunks(body, 50_000))
            assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 ")
            await reader.readuntil(b"}}")
            assert engine.body == body.replace(b"\r\nllama\r\n", b"\r\n%b\r\n" % upstream_model.encode())
            engine.body.clear()
        writer.close()
    rows = await stack.rows(2)
    assert {(row["outcome"], row["input_tokens"], row["output_tokens"]) for row in rows} == {("ok", 5, 2)}


@hot
async def test_the_engine_gets_the_form_while_it_comes(stack: Any) -> None:
    body = whole(b"s" * 1_000_000)
    async with deployed(stack, obedient) as [engine]:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write(head(len(body)) + body[:500_000])
        await until(lambda: len(engine.body) == 500_000)
        writer.write(body[500_000:])
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()


@hot
async def test_a_slow_engine_slows_the_client_down(stack: Any) -> None:
    begin = asyncio.Event()

    async def late(engine: SlowEngine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await begin.wait()
        await obedient(engine, reader, writer)

    body = whole(b"s" * (24 << 20))
    async with deployed(stack, late) as [engine]:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        client: socket.socket = writer.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)  # else the kernel may take most of it
        writer.write(head(len(body)) + body)
        await until(lambda: engine.arrived.is_set() and not any(f.transport.is_reading() for f in stack.hot.fronts))
        sizes = [-1]
        while (left := writer.transport.get_write_buffer_size()) != sizes[-1]:
            sizes.append(left)
            await asyncio.sleep(0.2)
        assert left > 8 << 20, "most of it is still the client's"
        [front] = stack.hot.fronts
        assert front._job.upstream.transport.get_write_buffer_size() < 1 << 20
        begin.set()
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()


@hot
async def test_a_deployment_that_cannot_be_reached_is_passed_over(stack: Any) -> None:
    async def unused(engine: SlowEngine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...

    body = whole(b"s" * 1_000_000)
    async with deployed(stack, unused, obedient) as [_, engine]:
        stack.config["endpoints"][0]["tiers"][0][0]["url"] = "http://127.0.0.1:1"
        await stack.reconfigure()
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write(head(len(body)) + body)
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 ") and engine.body == body
        writer.close()
    [row] = await stack.rows(1)
    assert row["retries"] == 1


@hot
async def test_a_form_that_was_passed_on_is_not_tried_elsewhere(stack: Any) -> None:
    async def die(engine: SlowEngine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(400_000)
        writer.transport.abort()

    body = whole(b"s" * 1_000_000)
    async with deployed(stack, die, obedient) as [_, other]:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write(head(len(body)) + body[:500_000])
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 502 ")
        assert not other.head
        writer.close()
    [row] = await stack.rows(1)
    assert (row["outcome"], row["error_code"], row["retries"]) == ("failed", "upstream_unreachable", 0)


@hot
async def test_an_early_answer_passes_and_ends_the_connection(stack: Any) -> None:
    async def refuse(engine: SlowEngine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(300_000)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        await reader.read()

    body = whole(b"s" * 1_000_000)
    async with deployed(stack, refuse) as [engine]:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write(head(len(body)) + body[:500_000])
        answer = await answer_of(reader)
        assert answer.startswith(b"HTTP/1.1 413 ") and b"connection: close\r\n" in answer
        assert await reader.read() == b"{}"
        await asyncio.wait_for(engine.left.wait(), 5)
        writer.close()
    assert [row["status"] for row in await stack.rows(1)] == [413]


@hot
async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(stack: Any) -> None:
    body = whole(b"s" * 1_000_000)
    async with deployed(stack, obedient) as [engine]:
        _, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write(head(len(body)) + body[:500_000])
        await asyncio.wait_for(engine.arrived.wait(), 5)
        writer.transport.abort()
        await asyncio.wait_for(engine.left.wait(), 5)
    [row] = await stack.rows(1)
    assert row["outcome"] == "cancelled"
    assert all(d.outstanding == 0 for d in stack.gateway.policy.snapshot.deployments.values())


@hot
async def test_a_client_that_stalls_is_told_so_and_the_engine_is_not_blamed(stack: Any) -> None:
    body = whole(b"s" * 1_000_000)
    async with deployed(stack, obedient) as [engine]:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write(head(len(body)) + body[:500_000])
        await until(lambda: len(engine.body) == 500_000)
        stack.hot.tick += 1000
        for front in list(stack.hot.fronts):
            front.sweep(stack.hot.tell_time())
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 408 ")
        writer.close()
        assert all(d.failures == d.silences == 0 for d in stack.gateway.policy.snapshot.deployments.values())


@hot
@pytest.mark.parametrize(
    "rest",
    [SECOND_MODEL + END, b"--XYZ junk\r\n", b"--XYZ\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END, b"no end"],
    ids=["another model", "junk after a boundary", "a part without a name", "no end"],
)
async def test_a_form_that_turns_bad_is_never_completed(stack: Any, rest: bytes) -> None:
    body = field("model", b"llama") + file(b"s" * 500_000) + rest
    async with deployed(stack, obedient) as [engine]:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write(head(len(body)) + body)
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 400 ")
        await asyncio.wait_for(engine.left.wait(), 5)
        assert len(engine.body) < len(body)
        writer.close()
    [row] = await stack.rows(1)
    assert (row["outcome"], row["error_code"]) == ("rejected", "invalid_request")


@hot
async def test_broken_framing_in_the_middle_of_a_form(stack: Any) -> None:
    body = whole(b"s" * 500_000)
    async with deployed(stack, obedient) as [engine]:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write(head(None) + chunks(body[:300_000], 100_000)[: -len(b"0\r\n\r\n")])
        await asyncio.wait_for(engine.arrived.wait(), 5)
        writer.write(b"zz\r\n")
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 400 ")
        await asyncio.wait_for(engine.left.wait(), 5)
        writer.close()


@hot
@pytest.mark.parametrize("declared", [True, False])
async def test_forms_have_a_greatest_size(stack: Any, declared: bool) -> None:
    size = 33 << 20
    async with deployed(stack, obedient):
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write(head(size if declared else None))
        start = field("model", b"llama") + file(b"s" * 200_000)[:-2]
        writer.write(start if declared else chunks(start, 1 << 20)[: -len(b"0\r\n\r\n")])
        reading = asyncio.create_task(answer_of(reader))
        block = b"s" * (1 << 20)
        with contextlib.suppress(ConnectionError):
            while not reading.done():
                writer.write(block if declared else b"%x\r\n%b\r\n" % (len(block), block))
                await writer.drain()
        assert (await reading).startswith(b"HTTP/1.1 413 ")
        writer.close()


@hot
async def test_a_form_waits_for_its_turn_behind_a_pipelined_request(stack: Any) -> None:
    body = whole(b"s" * 300_000)
    async with deployed(stack, obedient) as [engine]:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(health + head(len(body)) + body + health)
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 ")
        await reader.readuntil(b'"ok"}')
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 ")
        await reader.readuntil(b"}}")
        assert engine.body == body
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()


@hot
@fewer(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(cuts=st.lists(st.integers(0, 250_000), max_size=8), declared=st.booleans(), first=st.booleans())
async def test_wherever_the_segments_end(stack: Any, cuts: list[int], declared: bool, first: bool) -> None:
    parts = [field("model", b"llama"), file(bytes(range(256)) * 900)]
    body = b"".join(parts if first else reversed(parts)) + END
    data = head(len(body)) + body if declared else head(None) + chunks(body, 30_000)
    async with deployed(stack, obedient) as [engine]:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        at = 0
        for cut in [*sorted(cuts), len(data)]:
            writer.write(data[at:cut])
            at = max(at, cut)
            await asyncio.sleep(0)
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 ")
        assert engine.body == body
        writer.close()


# --- reading forms --------------------------------------------------------------------------------------------------

PIECES = st.sampled_from([
    field("model", b"llama"), field("stream", b"true"), field("language", b"de"), file(b"abc\r\n--XY\r\n"), END,
    SECOND_MODEL, b"\r\n", b"--XYZ", b"--XYZ\r\n", b"--", b"junk", b"--XYZ \r\n", b'name="model"', b"\r\n\r\n",
    b'--XYZ\r\nContent-Disposition: form-data; name="model"; filename="m"\r\n\r\nother\r\n',
    b"--XYZ\r\nContent-Disposition: form-data; name=model\r\n\r\nother\r\n",
    b'--XYZ\r\ncontent-disposition: form-data; name="Model"\r\n\r\nother\r\n',
    b'--XYZ\r\nContent-Disposition: form-data; name="x"\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n',
    b'--XYZ\r\nContent-Disposition: form-data; name="x"; name="model"\r\n\r\nother\r\n',
    b'--XYZ\r\nContent-Disposition: form-data;\r\n name="model"\r\n\r\nother\r\n',
    b'--XYZ\r\nX: ' + b"a" * 9000 + b'\r\nContent-Disposition: form-data; name="model"\r\n\r\nother\r\n',
])  # fmt: skip
BODIES = st.lists(PIECES, max_size=6).map(b"".join)


def read(body: bytes, cuts: list[int]) -> tuple[str, int, int] | None:
    reader = FormReader(CONTENT_TYPE)
    try:
        for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True):
            reader.feed(body[a:b])
        form = reader.form()
    except Rejected:
        return None
    return (form.call.model, form.start, form.end) if form is not None and reader.complete else None


@given(body=BODIES, cuts=st.lists(st.integers(0, 400), max_size=6))
def test_a_form_means_the_same_however_it_is_cut(body: bytes, cuts: list[int]) -> None:
    assert read(body, sorted(min(cut, len(body)) for cut in cuts)) == read(body, [])


@fewer(max_examples=400)
@given(body=BODIES)
def test_no_other_model_can_be_found_in_an_accepted_form(body: bytes) -> None:
    """Another parser sees the one model that was put there, or nothing at all."""
    try:
        form = parse(CONTENT_TYPE, body)
    except Rejected:
        return
    sent = form.with_model(body, "checked")
    with contextlib.suppress(ValueError):
        fields, files = MultiPartParser().parse(io.BytesIO(sent), b"XYZ", len(sent))
        assert fields.getlist("model") == ["checked"] and not files.getlist("model")


@pytest.mark.parametrize(
    "content_type",
    [b"multipart/form-data", b"multipart/form-data; boundary=a; boundary=b", b"multipart/form-data; x=y"],
)
def test_the_boundary_must_be_clear(content_type: bytes) -> None:
    with pytest.raises(Rejected):
        parse(content_type, whole(b"x"))
