"""Shadow deployments: they get copies of requests, and what they answer is measured and thrown away.

A copy is sent when the client's own request is over, so that it cannot delay it.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import httpx

from gateway.core.exchange import Exchange
from gateway.core.headers import OWN
from gateway.core.problems import Rejected
from gateway.core.snapshot import Deployment
from gateway.core.stage import AnswerHead, Garbled, Outgoing, Pipeline, Stage

if TYPE_CHECKING:
    from gateway.runtime import Gateway

log = logging.getLogger("gateway.shadow")
PROVIDER_HEADERS = (b"anthropic-beta", b"anthropic-version", b"openai-beta")


class ShadowStage(Stage):
    """Draws which shadows get a copy: each by its weight, the share of the requests that it sees."""

    def __init__(self, exchange: Exchange, shadows: "Shadows", deployments: tuple[Deployment, ...]) -> None:
        super().__init__(exchange)
        self._shadows = shadows
        self._deployments = deployments

    def over(self, outcome: str) -> None:
        if self.exchange.deployment is None or self.exchange.form is not None:
            return
        for deployment in self._deployments:
            if not deployment.asleep and self._shadows.draw() < deployment.weight:
                self._shadows.copy(self.exchange, deployment)


class _Discard(Pipeline):
    """Reads the usage of an answer that nobody gets."""

    def head(self, head: AnswerHead) -> None:
        pass

    def data(self, data: bytes) -> None:
        pass

    def end(self) -> None:
        pass

    def fail(self, problem: Rejected) -> None:
        pass


class Shadows:
    """Sends copies, at most ``max_copies`` at a time; what is above that is skipped and counted."""

    def __init__(self, gateway: "Gateway", max_copies: int) -> None:
        self.skipped = 0
        self.draw = gateway.policy.chooser.random.random
        self._gateway = gateway
        self._max_copies = max_copies
        self._tasks: set[asyncio.Task[None]] = set()
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Copies under way end here, each with its row."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def copy(self, exchange: Exchange, deployment: Deployment) -> None:
        """Send the same request to a shadow, in the background."""
        if len(self._tasks) >= self._max_copies:
            self.skipped += 1
            return
        task = asyncio.get_running_loop().create_task(self._run(self._copied(exchange, deployment)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _copied(self, exchange: Exchange, deployment: Deployment) -> Exchange:
        now_s = time.monotonic()
        copied = Exchange(self._gateway.policy.new_event_id(), exchange.path, now_s, time.time_ns() // 1_000_000)
        copied.request_id, copied.headers, copied.body = exchange.request_id, exchange.headers, exchange.body
        copied.key, copied.call, copied.routed_s = exchange.key, exchange.call, now_s
        copied.endpoint = copied.answered_by = exchange.endpoint
        copied.deployment = deployment
        deployment.outstanding += 1
        return copied

    async def _run(self, copied: Exchange) -> None:
        """Always ends in one row."""
        pipeline, status, code = _Discard(copied, ()), 499, "cancelled"
        try:
            async with asyncio.timeout(self._gateway.settings.total_timeout_s):
                status = await self._send(copied, pipeline)
            code = ""
        except Rejected as problem:
            status, code = problem.status, problem.code
        except (httpx.TimeoutException, TimeoutError):
            status, code = 504, "upstream_timeout"
        except httpx.HTTPError:
            status, code = 502, "upstream_unreachable"
        except Garbled:
            status, code = 502, "upstream_invalid"
        finally:
            usage, source = pipeline.usage()
            policy = self._gateway.policy
            self._gateway.emit(policy.finish(copied, status, "shadow", time.monotonic(), usage, source, code))

    async def _send(self, copied: Exchange, pipeline: Pipeline) -> int:
        """The status of the answer, once all of it was read. Raises Rejected, Garbled or httpx.HTTPError."""
        deployment, policy = copied.deployment, self._gateway.policy
        assert deployment is not None
        headers = [(name, value) for name, value in copied.headers.items() if name in PROVIDER_HEADERS]
        headers += [(b"content-type", b"application/json"), (b"x-request-id", copied.request_id.encode()), *OWN]
        request = Outgoing(deployment.prefix.decode(), copied.path, headers, policy.outgoing_body(copied))
        pipeline.attempt(deployment.translations.get(copied.path), request)
        self._gateway.authorise(deployment, request)
        url = deployment.url(request.prefix + request.path)
        async with self._http.stream("POST", url, content=request.body, headers=request.headers) as response:
            head = AnswerHead(response.status_code, [(n.lower(), v) for n, v in response.headers.raw])
            pipeline.upstream_head(head, hide_usage=policy.adds_usage(copied))
            async for data in response.aiter_raw():
                copied.first_s = copied.first_s or time.monotonic()
                pipeline.upstream_data(data)
            pipeline.upstream_end()
            return response.status_code

    @property
    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            settings = self._gateway.settings
            timeout = httpx.Timeout(settings.first_byte_timeout_s, connect=settings.connect_timeout_s)
            self._client = httpx.AsyncClient(timeout=timeout, trust_env=False)
        return self._client
