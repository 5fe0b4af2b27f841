"""Traces of sampled requests: the client's trace context is continued, and every attempt is a span of its own."""

import random
import re
from collections.abc import Callable

from gateway.core.shapes import Row
from gateway.core.snapshot import Deployment

TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
SAMPLED = 1


class Attempt:
    """One request to a deployment. ``status`` 0: it did not answer. Times are those of the policy's caller."""

    __slots__ = ("begun_s", "deployment", "ended_s", "span_id", "status")

    def __init__(self, span_id: str, deployment: Deployment, begun_s: float) -> None:
        self.span_id = span_id
        self.deployment = deployment
        self.begun_s = begun_s
        self.ended_s = 0.0
        self.status = 0


class Trace:
    """What is kept of a sampled request until it has ended; ids are lower-case hex digits."""

    __slots__ = (
        "arrived_s",
        "attempts",
        "ended_s",
        "first_s",
        "forwarded",
        "model",
        "parent_id",
        "row",
        "span_id",
        "trace_id",
        "tracer",
    )  # fmt: skip

    def __init__(self, tracer: "Tracer", trace_id: str, parent_id: str) -> None:
        self.tracer = tracer
        self.trace_id = trace_id
        self.parent_id = parent_id  # "": the trace begins here
        self.span_id = tracer.new_id(8)
        self.forwarded = b""  # header lines for deployments besides traceparent
        self.attempts: list[Attempt] = []
        self.model = ""  # as the client called it
        self.row: Row | None = None
        self.arrived_s = self.first_s = self.ended_s = 0.0

    @property
    def traceparent(self) -> bytes:
        """For the attempt under way."""
        return f"00-{self.trace_id}-{self.attempts[-1].span_id}-01".encode()

    def header_lines(self) -> bytes:
        """All that is forwarded with the attempt under way."""
        return b"%btraceparent: %b\r\n" % (self.forwarded, self.traceparent)

    def begin_attempt(self, deployment: Deployment, now_s: float) -> None:
        self.attempts.append(Attempt(self.tracer.new_id(8), deployment, now_s))

    def end_attempt(self, status: int, now_s: float) -> None:
        """The first end counts."""
        if self.attempts and not self.attempts[-1].ended_s:
            self.attempts[-1].ended_s, self.attempts[-1].status = now_s, status

    def end(self, row: Row, model: str, arrived_s: float, first_s: float, now_s: float) -> None:
        self.end_attempt(row.status if first_s or row.outcome == "ok" else 0, now_s)
        self.row, self.model = row, model
        self.arrived_s, self.first_s, self.ended_s = arrived_s, first_s, now_s
        self.tracer.ended(self)


class Tracer:
    """Decides which requests are traced: those of a sampled trace, and ``ratio`` of those that belong to none."""

    def __init__(self, ratio: float, ended: Callable[[Trace], None], seed: int | None = None) -> None:
        self.ratio = ratio
        self.ended = ended
        self._random = random.Random(seed)  # noqa: S311 - names traces, guards nothing

    def begin(self, traceparent: bytes) -> Trace | None:
        """``traceparent`` is the client's header, empty when it sent none; one that is not sound counts as none."""
        context = TRACEPARENT.fullmatch(traceparent)
        if context is not None:
            sampled = int(context[3], 16) & SAMPLED
            return Trace(self, context[1].decode(), context[2].decode()) if sampled else None
        return Trace(self, self.new_id(16), "") if self._random.random() < self.ratio else None

    def new_id(self, size: int) -> str:
        return f"{self._random.getrandbits(8 * size) or 1:0{2 * size}x}"
