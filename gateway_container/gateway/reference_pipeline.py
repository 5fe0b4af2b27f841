"""The pipeline of stages in the reference form."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

import httpx
from starlette.types import Message

from gateway.core.problems import Rejected
from gateway.core.stage import JSON, AnswerHead, Outgoing, Pipeline, StageMaker
from gateway.core.usage import NOTHING, Usage

if TYPE_CHECKING:
    from gateway.inference import Inference


class ReferencePipeline(Pipeline):
    """Stages push into a queue, from which the request's own task sends; its end is a message without more body."""

    def __init__(self, inference: "Inference", makers: tuple[StageMaker, ...]) -> None:
        super().__init__(inference.exchange, makers)
        self.inference = inference
        self.problem: Rejected | None = None
        self._head: Message | None = None  # of a JSON answer waits for its body: it may still become a problem
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._freed = asyncio.Event()
        self._freed.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def compose(self, prefix: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Outgoing:
        """Raises Rejected."""
        exchange = self.exchange
        assert exchange.deployment is not None
        request = Outgoing(prefix, exchange.path, headers, body)
        self.attempt(exchange.deployment.translations.get(exchange.path), request)
        self.inference.gateway.authorise(exchange.deployment, request)
        return request

    # --- from the deployment ------------------------------------------------------------------------------------

    async def pass_on(self, response: httpx.Response, head: AnswerHead, hide_usage: bool) -> None:
        """Read an answer through the stages. Raises Rejected, Garbled or httpx.HTTPError."""
        reading = asyncio.ensure_future(self._read(response, head, hide_usage))
        sending = asyncio.ensure_future(self.send())
        try:
            await asyncio.wait((reading, sending), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            await sending
        finally:
            await end_all(reading, sending)

    async def _read(self, response: httpx.Response, head: AnswerHead, hide_usage: bool) -> None:
        self.upstream_head(head, hide_usage)
        async for data in self._pieces(response):
            self.upstream_data(data)
        self.upstream_end()

    async def _pieces(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """The body's pieces, the next one when the last one was sent and nobody holds."""
        async for data in response.aiter_raw():
            if not self.exchange.first_s:
                self.inference.policy.first_byte(self.exchange, response.status_code, time.monotonic())
            if data:
                yield data
            await self._messages.join()
            await self._freed.wait()

    # --- towards the client -------------------------------------------------------------------------------------

    def head(self, head: AnswerHead) -> None:
        self._head = {"type": "http.response.start", "status": head.status, "headers": head.headers}
        if not head.content_type.startswith(JSON):
            self._put_head()

    def _put_head(self) -> None:
        head, self._head = self._head, None
        if head is not None:
            self._put(head)

    def data(self, data: bytes) -> None:
        self._put_head()
        if not self.exchange.first_s:
            self.exchange.first_s = time.monotonic()
        self._put({"type": "http.response.body", "body": data, "more_body": True})

    def end(self) -> None:
        self._put_head()
        self._put({"type": "http.response.body", "body": b"", "more_body": False})

    def fail(self, problem: Rejected) -> None:
        self.error_code = problem.code
        self.problem = problem
        self._put(None)

    def _put(self, message: Message | None) -> None:
        self._messages.put_nowait(message)

    async def send(self) -> None:
        """Send what the stages push, until the end. Raises Rejected when a stage failed the answer."""
        while True:
            message = await self._messages.get()
            if message is None:
                assert self.problem is not None
                raise self.problem
            await self.inference.send(message)
            self._messages.task_done()
            if message["type"] == "http.response.body" and not message["more_body"]:
                return

    # --- waiting ------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        super().hold()
        self._freed.clear()

    def free(self) -> None:
        super().free()
        if not self.holds:
            self._freed.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def used(self, outcome: str) -> tuple[Usage, str]:
        """What the row says of a request that ended so."""
        if not self.heard and self.answered is None and outcome != "cancelled":
            return NOTHING, "none"
        return self.usage()

    def over(self, outcome: str) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        super().over(outcome)


async def end_all(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel what still runs and wait for its end, so that connections are closed before the row is written."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
