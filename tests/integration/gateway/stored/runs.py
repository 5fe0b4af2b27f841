"""A gateway that runs batches of the real control plane, with an engine in process."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
from gateway.runtime import Gateway
from gateway.settings import Settings

from ..conftest import until
from .control_plane import URL, Plane

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")
LINES = 45  # three parts
BOUND_S = 60.0  # a run that never ends fails its test; the longest takes a few seconds


def line(number: int, **changes: Any) -> dict[str, Any]:
    body = {"model": "chat", "messages": [{"role": "user", "content": f"{number}"}]}
    return {"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": body, **changes}


def jsonl(*lines: dict[str, Any]) -> bytes:
    return "\n".join(json.dumps(one) for one in lines).encode()


INPUT = jsonl(*(line(number) for number in range(LINES)))
Act = Callable[[int], "httpx.Response | None"]


class Engine:
    """Answers as an engine does, unless ``act`` (told the number in the prompt) has something else to say."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.act: Act = lambda number: None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        number = int(json.loads(request.content)["messages"][0]["content"])
        self.asked.append(number)
        await self.gate.wait()
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        answer = {"choices": [{"message": {"content": f"{number}\n"}}], "usage": usage, "precise": 0.1}
        return self.act(number) or said(200, answer)


def said(status: int, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body, indent=1).encode()
    return httpx.Response(status, stream=Whole(content), headers={"content-type": "application/json", **headers})


class Whole(httpx.AsyncByteStream):
    """A body that comes from the network, so to speak: httpx has not read it yet."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


class Running:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.rows: list[Any] = []
        self.waits: list[float] = []
        gateway.emit = self.rows.append
        gateway.batches.sleep = self._sleep

    def wake(self) -> None:
        """A batch was made since the gateway began."""
        self.gateway.control.batches_wait = True
        self.gateway.batches.wake()

    async def _sleep(self, wait_s: float) -> None:
        self.waits.append(wait_s)
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(plane: Plane, spool: Path, engine: Engine, name: str = "gw-1") -> AsyncIterator[Running]:
    asked: dict[str, Any] = {"poll_s": 30.0, "flush_s": 30.0, "batch_lines": 4}
    gateway = Gateway(Settings(URL, plane.token, spool, name, **asked))
    gateway.batches.upstream = httpx.MockTransport(engine)
    run = Running(gateway)
    await gateway.start()
    try:
        async with asyncio.timeout(BOUND_S):
            yield run
    finally:
        await gateway.stop()


async def ended(plane: Plane, batch_id: str) -> Any:
    await until(lambda: plane.batch(batch_id).status in ENDED)
    return plane.batch(batch_id)
