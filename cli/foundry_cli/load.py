"""A short closed-loop load through the gateway: `concurrency` users who each ask again as soon as they are answered."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from foundry_cli.chat import Answer
from foundry_cli.errors import CliError


@dataclass
class LoadResult:
    """What the client side saw. ``wall_s`` spans from the first request to the last answer."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def output_tokens_per_s(self) -> float:
        return sum(answer.output_tokens for answer in self.answers) / self.wall_s if self.wall_s else 0.0


def run(url: str, key: str, body: dict[str, Any], concurrency: int, requests: int) -> LoadResult:
    """Send ``requests`` streamed completions; ``CliError`` when not one of them was answered."""
    result = asyncio.run(_run(url, key, body, concurrency, requests))
    if not result.answers:
        raise CliError(f"No request was answered: {result.failures[0] if result.failures else 'no reason given'}.")
    return result


async def _run(url: str, key: str, body: dict[str, Any], concurrency: int, requests: int) -> LoadResult:
    result = LoadResult()
    remaining = iter(range(requests))
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    content = json.dumps(body).encode()
    started = time.perf_counter()
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=300) as client:

        async def user() -> None:
            for _ in remaining:
                await _ask(client, content, result)

        await asyncio.gather(*(user() for _ in range(concurrency)))
    result.wall_s = time.perf_counter() - started
    return result


async def _ask(client: httpx.AsyncClient, content: bytes, result: LoadResult) -> None:
    asked = time.perf_counter()
    try:
        async with client.stream("POST", "/v1/chat/completions", content=content) as response:
            if response.status_code != 200:
                result.failures.append(f"status {response.status_code}")
                return
            result.answers.append(await _measure(response, asked))
    except httpx.HTTPError as error:
        result.failures.append(f"{type(error).__name__}")


async def _measure(response: httpx.Response, asked: float) -> Answer:
    """Times by the first and last piece of content; tokens from the usage in the last chunk."""
    first, tail = 0.0, b""
    async for piece in response.aiter_raw():
        if not first and b'"content":"' in piece.replace(b'"content": "', b'"content":"'):
            first = time.perf_counter()
        tail = (tail + piece)[-2048:]
    ended = time.perf_counter()
    usage = _usage(tail)
    return Answer(
        ((first or ended) - asked) * 1000,
        (ended - asked) * 1000,
        usage.get("prompt_tokens", 0),
        usage.get("completion_tokens", 0),
    )


def _usage(tail: bytes) -> dict[str, int]:
    for line in reversed(tail.decode("utf-8", "replace").splitlines()):
        if line.startswith("data: {") and '"usage"' in line:
            try:
                return dict(json.loads(line[6:]).get("usage") or {})
            except ValueError:
                return {}
    return {}
