"""The soak's clients: every kind of request that a gateway sees, each remembered with what its client saw."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

OPEN, LIMITED, WRONG = "sk-soak-open", "sk-soak-limited", "sk-soak-wrong"
LONGEST_S = 60.0
KINDS = {"whole": 30, "stream": 30, "cancelled": 10, "wrong_key": 4, "long": 6, "too_long": 1, "form": 4}
MAX_BODY_BYTES = 4 << 20


@dataclass
class Seen:
    """One request as its client saw it. ``status`` 0: no answer began."""

    kind: str
    key: str
    at_s: float
    status: int = 0
    whole: bool = False
    output_tokens: int = -1  # as the answer said
    input_tokens: int = -1
    code: str = ""


class Clients:
    """Keep-alive clients that send one request after the other until they are told to stop."""

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.seen: dict[str, Seen] = {}
        self.stopping = False
        self._random = random.Random(seed)

    async def run(self, count: int) -> None:
        await asyncio.gather(*(self._one_client(number) for number in range(count)))

    async def _one_client(self, number: int) -> None:
        made = 0
        while not self.stopping:
            async with self._connection() as (reader, writer):
                for _ in range(self._random.randint(1, 50)):
                    made += 1
                    if self.stopping or not await self._request(f"soak-{number}-{made}", reader, writer):
                        break
                    await asyncio.sleep(self._random.expovariate(40.0))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def _request(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """False: the connection cannot be used again."""
        kind = self._random.choices(list(KINDS), list(KINDS.values()))[0]
        key = WRONG if kind == "wrong_key" else self._random.choice([OPEN, LIMITED])
        seen = self.seen[name] = Seen(kind, key, asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(LONGEST_S):
                await _send(writer, name, kind, key)
                return await _read(seen, reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            return False


async def _send(writer: asyncio.StreamWriter, name: str, kind: str, key: str) -> None:
    path, content_type, body = "/v1/chat/completions", "application/json", _body(kind)
    if kind == "form":
        path, content_type = "/v1/audio/transcriptions", "multipart/form-data; boundary=soak"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: soak\r\nAuthorization: Bearer {key}\r\nX-Request-Id: {name}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()


def _body(kind: str) -> bytes:
    if kind == "form":
        model = b'--soak\r\nContent-Disposition: form-data; name="model"\r\n\r\nmock\r\n'
        file = b'--soak\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        return model + file + b"s" * (2 << 20) + b"\r\n--soak--\r\n"
    size = {"long": 300_000, "too_long": MAX_BODY_BYTES + 1}.get(kind, 800)
    body = {"model": "mock", "messages": [{"role": "user", "content": "x" * size}], "max_tokens": 64}
    if kind in ("stream", "cancelled"):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


async def _read(seen: Seen, reader: asyncio.StreamReader) -> bool:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    seen.status = int(head.split(" ", 2)[1])
    if "transfer-encoding: chunked" in head:
        data = await _chunks(seen, reader)
    else:
        length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
        data = await reader.readexactly(int(length.split(":")[1]))
    if data is None:
        return False
    seen.whole = True
    _note(seen, data)
    return "connection: close" not in head


async def _chunks(seen: Seen, reader: asyncio.StreamReader) -> bytes | None:
    """The stream's last event with usage; None when the client leaves in the middle, as it was told to."""
    last = b""
    number = 0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        data = await reader.readexactly(size + 2)
        number += 1
        if b'"usage":{' in data:
            last = next(event for event in data.split(b"\n\n") if b'"usage":{' in event).partition(b"data:")[2]
        if seen.kind == "cancelled" and number >= 5:
            return None
    await reader.readexactly(2)
    return last


def _note(seen: Seen, data: bytes) -> None:
    answer = json.loads(data) if data else {}
    usage = answer.get("usage") or {}
    seen.input_tokens = usage.get("prompt_tokens", -1)
    seen.output_tokens = usage.get("completion_tokens", -1)
    seen.code = (answer.get("error") or {}).get("code", "") if isinstance(answer.get("error"), dict) else ""
