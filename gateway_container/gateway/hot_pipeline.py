"""The pipeline of stages on the hot path: only requests that have stages, or whose deployment needs a translation."""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from gateway.core.headers import OWN
from gateway.core.problems import Rejected, outcome_of
from gateway.core.snapshot import Deployment
from gateway.core.stage import JSON, AnswerHead, Garbled, Outgoing, Pipeline, StageMaker
from gateway.framing import Head

if TYPE_CHECKING:
    from gateway.flow import Flow
    from gateway.upstream import Upstream


class HotPipeline(Pipeline):
    """Between an upstream connection and the client's; JSON answers get a length, all others are chunked."""

    def __init__(self, flow: "Flow", makers: tuple[StageMaker, ...]) -> None:
        super().__init__(flow, makers)
        self.flow = flow
        self.composed = b""  # the request for the present attempt
        self.sent = False  # the head is on its way to the client
        self._head: AnswerHead | None = None  # that waits for the body's length
        self._body: list[bytes] = []
        self._chunked = False
        self._tasks: set[asyncio.Task[None]] = set()

    # --- towards the deployment ---------------------------------------------------------------------------------

    async def admit(self) -> None:
        """Let the stages see the request before a deployment is chosen for it."""
        flow = self.flow
        try:
            answered = await self.request()
        except Rejected as problem:
            flow.hot.tell_time()
            if not flow.over:
                flow.refuse(problem)
            return
        except BaseException:
            flow.front.transport.abort()
            raise
        flow.hot.tell_time()
        if not answered and not flow.over:
            flow.route()

    def compose(self, deployment: Deployment) -> None:
        """Make the request's bytes for an attempt. Raises Rejected."""
        flow = self.flow
        body = flow.hot.policy.outgoing_body(flow)
        headers = [(b"Host", deployment.authority), *OWN, (b"Content-Type", flow.content_type)]
        request = Outgoing(deployment.prefix.decode(), flow.path, headers, body)
        self.attempt(deployment.translations.get(flow.path), request)
        flow.hot.gateway.authorise(deployment, request)
        lines = b"".join(b"%b: %b\r\n" % header for header in request.headers)
        self.composed = b"POST %b HTTP/1.1\r\n%bX-Request-Id: %b\r\n%bContent-Length: %d\r\n\r\n%b" % (
            (request.prefix + request.path).encode("ascii"), lines, flow.request_id.encode(),
            flow.forwarded, len(request.body), request.body,
        )  # fmt: skip

    # --- from the deployment ------------------------------------------------------------------------------------

    def begin(self, head: Head) -> None:
        lines = (line[:-2].partition(b": ") for line in head.passed)
        answer = AnswerHead(head.status, [(name, value) for name, _, value in lines])
        self.upstream_head(answer, self.flow.hot.policy.adds_usage(self.flow))

    def feed(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            if not self.flow.over:
                self.upstream_data(piece)

    def finish(self, upstream: "Upstream") -> None:
        """The deployment's answer is complete."""
        if self.flow.over:
            return
        self.flow.release(upstream)
        try:
            self.upstream_end()
        except Garbled:
            self.flow.upstream_garbled()

    # --- towards the client -------------------------------------------------------------------------------------

    def head(self, head: AnswerHead) -> None:
        flow = self.flow
        if flow.over:
            return
        flow.status = head.status
        flow.passing = True
        self._head = head
        if head.status != 204 and not head.content_type.startswith(JSON):
            self._chunked = not flow.http_1_0
            flow.keep_alive = flow.keep_alive and self._chunked
            self._write_head(b"transfer-encoding: chunked\r\n" if self._chunked else b"")

    def _write_head(self, framing: bytes, body: bytes = b"") -> None:
        head, flow = self._head, self.flow
        assert head is not None
        self._head = None
        self.sent = True
        if not flow.keep_alive:
            framing += b"connection: close\r\n"
        if flow.hot.server_timing:
            framing += flow.timing_line()
        flow.front.transport.write(
            b"%b%bx-request-id: %b\r\n%b\r\n%b" % (
                flow.hot.status_line(head.status), b"".join(b"%b: %b\r\n" % header for header in head.headers),
                flow.request_id.encode(), framing, body,
            )
        )  # fmt: skip

    def data(self, data: bytes) -> None:
        if self.flow.over:
            return
        if not self.flow.first_s:
            self.flow.first_s = self.flow.hot.now_s
        if self._head is not None:
            self._body.append(data)
        else:
            self.flow.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data, False)

    def end(self) -> None:
        flow = self.flow
        if flow.over:
            return
        if self._head is not None:
            body = b"".join(self._body)
            self._write_head(b"content-length: %d\r\n" % len(body), body)
        elif self._chunked:
            flow.write(b"0\r\n\r\n", True)
        flow.drop_upstream()
        usage, source = self.usage()
        outcome = self.outcome or outcome_of(flow.status)
        flow.finish(flow.status, outcome, usage, source, self.error_code)

    def fail(self, problem: Rejected) -> None:
        flow = self.flow
        if flow.over:
            return
        self.error_code = problem.code
        if self.sent:
            flow.cut()
            return
        flow.drop_upstream()
        usage, source = self.usage()
        flow.status = problem.status
        flow.front.respond(problem, problem.body(flow.path), flow.keep_alive, flow.request_id)
        flow.finish(problem.status, problem.outcome, usage, source, problem.code)

    # --- waiting ------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        super().hold()
        if self.flow.upstream is not None:
            self.flow.upstream.transport.pause_reading()

    def free(self) -> None:
        super().free()
        self.flow.hot.tell_time()
        if self.flow.upstream is not None and not self.holds and not self.flow.slow:
            self.flow.upstream.transport.resume_reading()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.flow.hot.spawn(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def over(self, outcome: str) -> None:
        for task in tuple(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()
        super().over(outcome)
