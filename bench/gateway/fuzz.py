"""Fuzzes the front of the hot path for some minutes: mutated requests in random fragments over real connections.

    .venv/bin/python bench/gateway/fuzz.py --seconds 180

Nothing may be logged as an error, nobody may be left behind, and the next client is always served. The last line is one
JSON object; a failure prints the seed and the bytes that led to it. Runs the form of the gateway that PYTHONPATH names.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import uvloop

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "gateway_container"))
from gateway.core.snapshot import load  # noqa: E402
from gateway.server import Server  # noqa: E402
from gateway.settings import Settings  # noqa: E402

KEY = b"sk-fuzz"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-fuzz\r\n"
CHAT = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
STREAM = b'{"model":"m","stream":true,"messages":[]}'
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"s" * 5000 + b"\r\n--B--\r\n"
)
FORM_HEAD = HEAD.replace(b"chat/completions", b"audio/transcriptions") + (
    b"Content-Type: multipart/form-data; boundary=B\r\n"
)


def lengthy(head: bytes, body: bytes) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(head: bytes, body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


CORPUS = [
    lengthy(HEAD, CHAT), lengthy(HEAD, STREAM), lengthy(HEAD, CHAT) + lengthy(HEAD, STREAM), chunked(HEAD, CHAT, 7),
    lengthy(FORM_HEAD, FORM), chunked(FORM_HEAD, FORM, 900), lengthy(HEAD + b"Expect: 100-continue\r\n", CHAT),
    lengthy(HEAD, CHAT).replace(b"HTTP/1.1", b"HTTP/1.0"), chunked(HEAD, CHAT, 7)[:-2] + b"Authorization: x\r\n\r\n",
    lengthy(HEAD + b"Connection: keep-alive\r\n", STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"),
    b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-fuzz\r\n\r\n",
]  # fmt: skip
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\r\n\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n",
    b"ffffffff\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"Connection: close\r\n", b"--B--\r\n",
    b"--B\r\n", b"\xff\xfe", b"{", b'"', b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"A" * 40_000, b"[" * 2000,
    b"Host: y\r\n", b"transfer-encoding: gzip\r\n", b"5;ext=", b";a=b", b"-1", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]  # fmt: skip


def mutated(chance: random.Random) -> bytes:
    data = bytearray(b"".join(chance.choices(CORPUS, k=chance.randint(1, 3))))
    for _ in range(chance.randint(0, 6)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            data[at : at + chance.randint(1, 4)] = chance.randbytes(chance.randint(0, 4))
        elif kind == 1:
            data[at:at] = chance.choice(TOKENS)
        elif kind == 2:
            del data[at : at + chance.randint(1, 60)]
        else:
            data[at:at] = data[at : at + chance.randint(1, 200)]
    return bytes(data)


async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers what it understands; breaks off now and then."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ValueError, asyncio.LimitOverrunError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"content-length:" in head:
                body = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            else:
                body = await reader.readuntil(b"0\r\n\r\n")
            if len(body) % 11 == 0:
                break
            if b'"stream":true' in body:
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                writer.write(b'1e\r\ndata: {"choices":[{"xyz":1}]}\n\n\r\n0\r\n\r\n')
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
    writer.close()


class Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


async def attack(port: int, seed: int, statuses: Counter[str]) -> None:
    chance = random.Random(seed)
    data = mutated(chance)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(OSError, RuntimeError):  # uvloop says so when the gateway has closed
        at = 0
        while at < len(data):
            size = chance.choice([1, 7, 60, 1000, 100_000])
            writer.write(data[at : at + size])
            at += size
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        if chance.random() < 0.3:
            writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                answer = await reader.read(4096)
                statuses[answer[9:12].decode("latin-1") if answer else "closed"] += 1
    writer.transport.abort()


async def fuzz(seconds: float, first_seed: int) -> dict[str, object]:
    errors, statuses, work = Errors(), Counter[str](), Path(tempfile.mkdtemp())
    logging.getLogger("gateway").addHandler(errors)
    logging.getLogger("asyncio").addHandler(errors)
    logging.getLogger("gateway").setLevel(logging.ERROR)
    serving = await asyncio.start_server(engine, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{serving.sockets[0].getsockname()[1]}"
    settings = Settings("http://127.0.0.1:1", "t", work, port=0, stream_body_bytes=1000, drain_s=1.0)
    seed, ends_s = first_seed, time.monotonic() + seconds
    async with Server(settings) as server:
        server.gateway.policy.swap(load(config(url)))
        while time.monotonic() < ends_s and not errors.found:
            await asyncio.gather(*(attack(server.port, seed + n, statuses) for n in range(16)))
            seed += 16
            await still_serves(server.port)
        await settled(server)
        left = len(server.hot.fronts)
        held = sum(d.outstanding for d in server.gateway.policy.snapshot.deployments.values())
    serving.close()
    shutil.rmtree(work)
    print("\n".join(errors.found[:3]))
    return {"requests": seed - first_seed, "next_seed": seed, "answers": dict(statuses), "errors": len(errors.found),
            "connections_left": left, "requests_left": held}  # fmt: skip


def config(url: str) -> bytes:
    from hashlib import sha256

    key = {"id": "k", "sha256": sha256(KEY).hexdigest(), "project_id": "p"}
    tiers = [[{"id": "d", "url": url, "model": "m"}]]
    return json.dumps({"version": 1, "keys": [key], "endpoints": [{"name": "m", "tiers": tiers}]}).encode()


async def still_serves(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def settled(server: Server) -> None:
    for _ in range(100):
        if not server.hot.fronts:
            return
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    result = uvloop.run(fuzz(options.seconds, options.seed))
    print(json.dumps(result))
    sys.exit(1 if result["errors"] or result["connections_left"] or result["requests_left"] else 0)
