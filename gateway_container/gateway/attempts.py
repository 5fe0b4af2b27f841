"""The first half of a request on the hot path: admission, the choice of a deployment, and sending to it."""

import ssl
from typing import TYPE_CHECKING, cast

from gateway.core.choose import sleeping
from gateway.core.exchange import Exchange
from gateway.core.problems import Rejected
from gateway.core.snapshot import Deployment
from gateway.hot_pipeline import HotPipeline
from gateway.pool import Pool

if TYPE_CHECKING:
    from gateway.flow import Flow
    from gateway.front import Front
    from gateway.hot import Hot
    from gateway.upstream import Upstream


class Attempts(Exchange):
    """An exchange that looks for a deployment to answer it."""

    __slots__ = (
        "content_type", "forwarded", "front", "heard_tick", "hot", "keep_alive", "over", "passing", "pipeline",
        "problem", "redialled", "replayable", "status", "upstream",
    )  # fmt: skip

    def __init__(self, hot: "Hot", front: "Front", path: str) -> None:
        super().__init__(hot.policy.new_event_id(), path, hot.now_s, hot.now_ms)
        self.hot = hot
        self.front = front
        self.content_type = b"application/json"
        self.forwarded = b""  # header lines for the deployment
        self.keep_alive = True
        self.problem: Rejected | None = None
        self.upstream: Upstream | None = None
        self.pipeline: HotPipeline | None = None  # its stages, if it has any
        self.redialled = False
        self.replayable = True  # the whole body that was sent so far is still here
        self.status = 0
        self.passing = False  # an answer is on its way to the client
        self.heard_tick = hot.tick
        self.over = False

    @property
    def max_body_bytes(self) -> int:
        return self.hot.max_body_bytes

    # --- request ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """The request is complete and it is its turn."""
        if self.admit():
            self.proceed()

    def admit(self) -> bool:
        """Whether it may go on at once; else it is refused, or waits for a lease."""
        if self.problem is not None:
            self.refuse(self.problem)
            return False
        try:
            short = self.hot.policy.admit(self, self.body, self.content_type, self.hot.now_ms)
        except Rejected as problem:
            self.refuse(problem)
            return False
        if short is not None:
            self.hot.spawn(self._reserve())
        return short is None

    async def _reserve(self) -> None:
        try:
            await self.hot.gateway.leasing.reserve(self)
        except Rejected as problem:
            self.hot.tell_time()
            if not self.over:
                self.refuse(problem)
            return
        self.hot.tell_time()
        if self.over:  # the client left while we waited: what has just been held goes back
            self.hot.policy.release(self)
        else:
            self.proceed()

    def proceed(self) -> None:
        """It is admitted: its stages, or a deployment."""
        assert self.endpoint is not None
        if self.endpoint.stages:
            self.pipeline = HotPipeline(cast("Flow", self), self.endpoint.stages)
            self.hot.spawn(self.pipeline.admit())
        else:
            self.route()

    # --- attempts -----------------------------------------------------------------------------------------------

    def route(self) -> None:
        deployment = self.hot.policy.choose(self, self.hot.now_s)
        if deployment is not None:
            self._attempt(deployment)
        elif sleeping(self) is not None:
            held = cast("Flow", self)
            self.hot.held[held] = self.hot.spawn(self._route_slowly())
        else:
            self.refuse(Rejected("no_deployment", retry_after_s=1))

    async def _route_slowly(self) -> None:
        try:
            deployment = await self.hot.gateway.choose(self)
        except Rejected as problem:
            self.hot.tell_time()
            self.refuse(problem)
            return
        finally:
            self.hot.held.pop(cast("Flow", self), None)
        self.hot.tell_time()
        self._attempt(deployment)

    def stop_waiting(self) -> None:
        """The request has ended: its place in the queue is free for others at once."""
        held = self.hot.held.pop(cast("Flow", self), None)
        if held is not None:
            held.cancel()

    def _attempt(self, deployment: Deployment) -> None:
        self.redialled = False
        self.heard_tick = self.hot.tick
        if self.trace is not None:
            self.forwarded = self.trace.header_lines()
        try:
            pool, line = self.hot.target(deployment, self.path)
            if self.pipeline is not None or self.path in deployment.translations:
                self._compose(deployment)
        except Rejected as problem:
            self._pass_over(problem)
            return
        upstream = pool.take()
        if upstream is not None:
            self.send(upstream, line)
        else:
            self.hot.spawn(self._dial(pool, line))

    def _pass_over(self, problem: Rejected) -> None:
        """No key for this deployment, or no word there for what the client says: perhaps another can be asked."""
        following = self.hot.policy.retry(self, self.hot.now_s, sent=False)
        if following is None:
            self.refuse(problem)
        else:
            self._attempt(following)

    def _compose(self, deployment: Deployment) -> None:
        if self.pipeline is None:
            self.pipeline = HotPipeline(cast("Flow", self), ())
        self.pipeline.compose(deployment)

    async def _dial(self, pool: Pool, line: bytes) -> None:
        try:
            upstream = await pool.dial()
        except (OSError, ssl.SSLError):
            if not self.over:
                self.attempt_failed(None, Rejected("upstream_unreachable"))
            return
        if self.over:
            upstream.release()
        else:
            self.send(upstream, line)

    def send(self, upstream: "Upstream", line: bytes) -> None:
        self.upstream = upstream
        if self.pipeline is not None:
            upstream.begin(self, self.pipeline.composed)
            return
        body = self.hot.policy.outgoing_body(self)
        request_id = self.request_id.encode()
        upstream.begin(
            self,
            b"%bContent-Type: %b\r\nX-Request-Id: %b\r\n%bContent-Length: %d\r\n\r\n%b"
            % (line, self.content_type, request_id, self.forwarded, len(body), body),
        )

    def attempt_failed(self, status: int | None, problem: Rejected | None) -> bool:
        """Go elsewhere if that is allowed; else end with ``problem``. False: pass the answer on."""
        policy, now_s = self.hot.policy, self.hot.tell_time()
        if policy.attempt_failed(self, status, now_s, self.passing or not self.replayable):
            following = policy.retry(self, now_s)
            if following is not None:
                self.drop_upstream()
                self._attempt(following)
                return True
        if problem is not None:
            self.refuse(problem)
        return problem is not None

    def redial(self) -> None:
        """A kept connection was closed just as it was used: that says nothing about the deployment."""
        assert self.deployment is not None
        self.redialled = True
        self.hot.spawn(self._dial(*self.hot.target(self.deployment, self.path)))

    def drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.drop()

    def pause_body(self) -> None:
        """The deployment does not keep up. That matters only where the body is still coming."""

    def resume_body(self) -> None:
        pass

    def refuse(self, problem: Rejected) -> None:
        """Answer with a problem. Only before anything else was sent."""
        raise NotImplementedError
