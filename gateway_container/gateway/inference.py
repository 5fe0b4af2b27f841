"""One inference request through the reference form: an ASGI request in, an httpx request out."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import httpx
from starlette.types import Message, Receive, Scope, Send

from gateway.clock import now_ms
from gateway.core import usage as usages
from gateway.core.exchange import Exchange
from gateway.core.headers import OWN, TO_CLIENT, TO_STAGES, TO_UPSTREAM, client_ip, token_of
from gateway.core.problems import Rejected, is_error, outcome_of
from gateway.core.snapshot import Deployment
from gateway.core.stage import AnswerHead, Garbled
from gateway.core.usage import NOTHING, BodyReader, StreamReader, Usage
from gateway.reference_pipeline import ReferencePipeline, end_all
from gateway.runtime import Gateway
from gateway.settings import Settings

Result = TypeVar("Result")


class ClientLeft(Exception):
    """The client closed the connection before the answer was complete."""


class BrokenOff(Exception):
    """The deployment broke off in the middle of its answer."""


def upstream_client(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """What the reference form sends to deployments with."""
    timeout = httpx.Timeout(settings.idle_timeout_s, connect=settings.connect_timeout_s)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    return httpx.AsyncClient(timeout=timeout, limits=limits, transport=transport, trust_env=False)


class Inference:
    """State of one request. ``run`` always ends in exactly one metering row."""

    def __init__(self, gateway: Gateway, client: httpx.AsyncClient, scope: Scope, receive: Receive, send: Send) -> None:
        self.gateway = gateway
        self.policy = gateway.policy
        self.client = client
        self.receive = receive
        self._send = send
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.named = dict(self.headers)
        self.peer = scope["client"][0] if scope.get("client") else ""
        event_id = self.policy.new_event_id()
        self.exchange = Exchange(event_id, scope["path"], time.monotonic(), now_ms())
        self.exchange.name_by(self.named.get(b"x-request-id", b""))
        self.exchange.headers = {name: value for name, value in self.named.items() if name in TO_STAGES}
        self.exchange.trace = gateway.observability.begin_trace(self.named.get(b"traceparent", b""))
        self.sent_status = 0
        self.sent_all = False
        self.reader: StreamReader | None = None
        self.kept = BodyReader()
        self.error_code = ""
        self.pipeline: ReferencePipeline | None = None

    async def run(self) -> None:
        outcome = "failed"
        try:
            outcome = await self._serve()
        except ClientLeft:
            outcome = "cancelled"
        except BrokenOff:
            outcome = "cut"
        except Rejected as problem:
            self.error_code = problem.code
            outcome = "cut" if self.sent_status else problem.outcome
            await self._refuse(problem)
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._finish(outcome)

    def _identify(self) -> None:
        """Whose request is it, and may it come in? Raises Rejected."""
        exchange = self.exchange
        forwarded = self.named.get(b"x-forwarded-for", b"")
        address = client_ip(self.peer, forwarded, self.gateway.trusted_proxies)
        agent = self.named.get(b"user-agent", b"").decode("latin-1")
        exchange.origin = address, agent
        snapshot = self.policy.snapshot
        if snapshot is not None:
            self.policy.blocking.refuse(snapshot, address, agent, now_ms())
        self.policy.authorise(exchange, token_of(self.named), address)

    async def _serve(self) -> str:
        exchange = self.exchange
        self._identify()
        body = await self._read_body()
        if self.policy.admit(exchange, body, self.named.get(b"content-type", b""), now_ms()) is not None:
            await self.gateway.leasing.reserve(exchange)
        assert exchange.endpoint is not None
        if exchange.endpoint.stages:
            self.pipeline = ReferencePipeline(self, exchange.endpoint.stages)
            if await self._unless_left(self.pipeline.request()):
                await self._unless_left(self.pipeline.send())
                return self.pipeline.outcome or "ok"
        response = await self._attempts()
        try:
            return await self._pass_on(response)
        finally:
            await response.aclose()

    async def _read_body(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.gateway.settings.max_body_bytes:
                raise Rejected("body_too_large")
            if not message.get("more_body"):
                return b"".join(parts)

    # --- upstream -----------------------------------------------------------------------------------------------

    async def _attempts(self) -> httpx.Response:
        """Try deployments until one answers with something to pass on."""
        deployment = await self._unless_left(self.gateway.choose(self.exchange))
        while True:
            response, problem = await self._attempt(self._next_request(deployment))
            status = response.status_code if response is not None else None
            now_s = time.monotonic()
            if status is not None and not is_error(status):
                break
            again = self.policy.attempt_failed(self.exchange, status, now_s, sent=False)
            following = self.policy.retry(self.exchange, now_s) if again else None
            if following is None:
                break
            if response is not None:
                await response.aclose()
            deployment = following
        if response is None:
            raise problem
        return response

    def _next_request(self, deployment: Deployment) -> httpx.Request:
        """For the deployment, or the next that has a key and a word for what the client says. Raises Rejected."""
        try:
            return self._request(deployment)
        except Rejected:
            following = self.policy.retry(self.exchange, time.monotonic(), sent=False)
            if following is None:
                raise
            return self._next_request(following)

    async def _attempt(self, request: httpx.Request) -> tuple[httpx.Response | None, Rejected]:
        left = asyncio.ensure_future(self._watch_client())
        sending = asyncio.ensure_future(self.client.send(request, stream=True))
        try:
            await asyncio.wait(
                (left, sending), timeout=self.gateway.settings.first_byte_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if left.done():
                raise ClientLeft
            if not sending.done():
                return None, Rejected("upstream_timeout")
            return sending.result(), Rejected("upstream_unreachable")
        except httpx.TimeoutException:
            return None, Rejected("upstream_timeout")
        except httpx.HTTPError:
            return None, Rejected("upstream_unreachable")
        finally:
            await end_all(left, sending)

    def _request(self, deployment: Deployment) -> httpx.Request:
        path, headers = self.exchange.path, self._outgoing_headers()
        body, prefix = self.policy.outgoing_body(self.exchange), deployment.prefix.decode()
        if self.pipeline is None and path in deployment.translations:
            self.pipeline = ReferencePipeline(self, ())
        if self.pipeline is None:
            headers += self.gateway.authorisation(deployment)
        else:
            composed = self.pipeline.compose(prefix, headers, body)
            prefix, path, headers, body = composed.prefix, composed.path, composed.headers, composed.body
        return self.client.build_request("POST", deployment.url(prefix + path), content=body, headers=headers)

    def _outgoing_headers(self) -> list[tuple[bytes, bytes]]:
        named = {name: value for name, value in self.headers if name in TO_UPSTREAM}
        if self.exchange.trace is not None:
            named[b"traceparent"] = self.exchange.trace.traceparent
        named[b"content-type"] = self.named.get(b"content-type", b"application/json")
        named[b"x-request-id"] = self.exchange.request_id.encode()
        return [*named.items(), *OWN]

    async def _watch_client(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    # --- downstream ---------------------------------------------------------------------------------------------

    async def _pass_on(self, response: httpx.Response) -> str:
        passed = [(n.lower(), v) for n, v in response.headers.raw if n.lower() in TO_CLIENT]
        head = AnswerHead(response.status_code, passed)
        if self.pipeline is not None:
            return await self._unless_left(self._pass_stages(response, head, self.pipeline))
        self.kept.encoded = head.encoded
        if head.event_stream:
            self.reader = StreamReader(self.policy.adds_usage(self.exchange))
        length = response.headers.get("content-length")
        if length is not None and self.reader is None:
            head.headers.append((b"content-length", length.encode()))
        await self._start(head.status, head.headers)
        return await self._unless_left(self._pass_body(response))

    async def _unless_left(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do something for as long as the client is there. Raises ClientLeft."""
        working = asyncio.ensure_future(work)
        left = asyncio.ensure_future(self._watch_client())
        try:
            await asyncio.wait((working, left), return_when=asyncio.FIRST_COMPLETED)
            if not working.done() and not self.sent_all:  # a server reports a client as gone after the last byte, too
                raise ClientLeft
            return await working
        finally:
            await end_all(working, left)

    async def _pass_stages(self, response: httpx.Response, head: AnswerHead, pipeline: ReferencePipeline) -> str:
        try:
            await pipeline.pass_on(response, head, self.policy.adds_usage(self.exchange))
        except (httpx.HTTPError, Garbled) as error:
            late = isinstance(error, httpx.TimeoutException)
            if not late:
                self.policy.broken_off(self.exchange)
            if not self.sent_status:
                raise Rejected("upstream_timeout" if late else "upstream_invalid") from None
            raise BrokenOff from None
        self.error_code = pipeline.error_code
        return pipeline.outcome or outcome_of(self.sent_status)

    async def _pass_body(self, response: httpx.Response) -> str:
        try:
            async for data in response.aiter_raw():
                if not self.exchange.first_s:
                    self.policy.first_byte(self.exchange, response.status_code, time.monotonic())
                if self.reader is not None:
                    data = self.reader.feed(data)
                else:
                    self.kept.feed(data)
                if data:
                    await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except httpx.HTTPError as error:
            if not isinstance(error, httpx.TimeoutException):  # which may come of a client who reads slowly
                self.policy.broken_off(self.exchange)
            # Nothing may be sent after a break: the missing end tells the client that the answer is not whole.
            raise BrokenOff from None
        rest = self.reader.rest() if self.reader is not None else b""
        await self._send({"type": "http.response.body", "body": rest, "more_body": False})
        return outcome_of(response.status_code)

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, message: Message) -> None:
        """Send to the client; the head gets the request's id."""
        if message["type"] == "http.response.start":
            self.sent_status = message["status"]
            message["headers"].append((b"x-request-id", self.exchange.request_id.encode()))
            if self.gateway.settings.server_timing:
                message["headers"].append((b"server-timing", self.exchange.server_timing(time.monotonic())))
        elif not message.get("more_body"):
            self.sent_all = True
        await self._send(message)

    async def _refuse(self, problem: Rejected) -> None:
        if self.sent_status:
            return
        body = problem.body(self.exchange.path)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if problem.retry_after_s:
            headers.append((b"retry-after", b"%d" % problem.retry_after_s))
        await self._start(problem.status, headers)
        message: Message = {"type": "http.response.body", "body": body}
        with contextlib.suppress(OSError):
            await self._send(message)

    # --- the row ------------------------------------------------------------------------------------------------

    def _finish(self, outcome: str) -> None:
        if self.pipeline is not None:
            if self.pipeline.answered is not None:  # it is free, however much of it the client has taken
                outcome = self.pipeline.outcome
            usage, source = self.pipeline.used(outcome)
            self.pipeline.over(outcome)
        else:
            usage, source = self._usage(outcome)
        status = self.sent_status or 499
        row = self.policy.finish(self.exchange, status, outcome, time.monotonic(), usage, source, self.error_code)
        self.gateway.emit(row)

    def _usage(self, outcome: str) -> tuple[Usage, str]:
        if outcome not in ("ok", "cancelled", "cut") or is_error(self.sent_status):
            return NOTHING, "none"
        return usages.used(self.reader, self.kept, self.exchange, outcome == "ok")
