"""A short closed-loop load through the gateway: `concurrency` users who each ask again as soon as they are answered.

At the protocol level (httptools), because 64 streams of 80 tokens/s must leave the two cores of a small machine to the
platform that is being measured.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools

from foundry_cli.chat import Answer
from foundry_cli.errors import CliError

_ANSWER_LIMIT_S = 300
_TAIL_BYTES = 2048
Body = dict[str, Any]


@dataclass
class LoadResult:
    """What the client side saw. ``wall_s`` spans from the first request to the last answer."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def output_tokens_per_s(self) -> float:
        return sum(answer.output_tokens for answer in self.answers) / self.wall_s if self.wall_s else 0.0


class _Exchange(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    async def ask(self, request: bytes) -> Answer:
        assert self.transport is not None
        self.parser, self.done = httptools.HttpResponseParser(self), asyncio.get_running_loop().create_future()
        self.first, self.tail = 0.0, b""
        asked = time.perf_counter()
        self.transport.write(request)
        await asyncio.wait_for(self.done, _ANSWER_LIMIT_S)
        if self.parser.get_status_code() != 200:
            raise ConnectionError(f"status {self.parser.get_status_code()}")
        return _answer(asked, self.first, time.perf_counter(), self.tail)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(ConnectionError(str(error)))

    def on_body(self, body: bytes) -> None:
        if not self.first and b'"content":' in body:
            self.first = time.perf_counter()
        self.tail = (self.tail + body)[-_TAIL_BYTES:]

    def on_message_complete(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ConnectionError("connection closed"))

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error) if error else self.done.set_result(None)


def _answer(asked: float, first: float, ended: float, tail: bytes) -> Answer:
    usage = _usage(tail)
    ttft_ms = ((first or ended) - asked) * 1000
    counts = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return Answer(ttft_ms, (ended - asked) * 1000, *counts)


def _usage(tail: bytes) -> dict[str, int]:
    """The engine's own count, in the last chunk of the stream."""
    for line in reversed(tail.decode("utf-8", "replace").splitlines()):
        if line.startswith("data: {") and '"usage"' in line:
            try:
                return dict(json.loads(line[6:]).get("usage") or {})
            except ValueError:
                return {}
    return {}


def request_bytes(url: str, key: str, body: Body) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def run(url: str, key: str, bodies: Sequence[Body], concurrency: int) -> LoadResult:
    """Send one streamed completion per body; ``CliError`` when not one of them was answered."""
    result = asyncio.run(_run(url, [request_bytes(url, key, body) for body in bodies], concurrency))
    if not result.answers:
        raise CliError(f"No request was answered: {result.failures[0] if result.failures else 'no reason given'}.")
    return result


async def _run(url: str, requests: list[bytes], concurrency: int) -> LoadResult:
    result, remaining, started = LoadResult(), iter(requests), time.perf_counter()
    await asyncio.gather(*(_user(url, remaining, result) for _ in range(concurrency)))
    result.wall_s = time.perf_counter() - started
    return result


async def _user(url: str, remaining: Iterator[bytes], result: LoadResult) -> None:
    exchange: _Exchange | None = None
    for request in remaining:
        try:
            exchange = exchange or await _connect(url)
            result.answers.append(await exchange.ask(request))
        except (OSError, TimeoutError) as error:
            result.failures.append(str(error) or type(error).__name__)
            exchange = None


async def _connect(url: str) -> _Exchange:
    address = urlsplit(url)
    place = address.hostname or "localhost", address.port or 80
    _, exchange = await asyncio.get_running_loop().create_connection(_Exchange, *place)
    return exchange
