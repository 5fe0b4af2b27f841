"""Stages: the one place where a request or its answer is changed or observed on its way.

A *stage* is an object of one request, made by a ``StageMaker`` of the endpoint that the client named (not of a
fallback); the stages of a request are its *pipeline*. The first stage is nearest to the client: requests pass in order,
answers in reverse. An endpoint without stages has no pipeline and its bytes pass untouched. ``Policy.stage_kinds`` says
which stages an endpoint has: each kind gives a maker, or None, whenever a config is put in force. What a stage may rely
on and must do:

* ``request`` runs once, after keys, limits and budgets, before a deployment is chosen. It may wait (and bounds its
  wait itself), replace ``exchange.body`` (still in the client's dialect, same ``model`` and ``stream``; the body of a
  form stays as it is), raise ``Rejected``, or answer at once: push ``head``, ``data`` and ``end`` to ``self.down``
  and return True. Such an answer passes the stages before it only.
* ``outgoing`` runs for each attempt, before it is sent: it may change path, headers and body.
* ``head``, ``data`` and ``end`` see the answer that is passed on (never one that was retried elsewhere), in order, and
  push what goes on to ``self.down``, now or later: whatever is pushed must be in order, and ``end`` comes last.
  ``data`` is never empty, its boundaries mean nothing. The framing is the pipeline's: no length has to be kept right.
* Waiting on the answer's side: keep the pieces, ``self.pipeline.hold()`` so that the deployment is not read meanwhile
  (a piece or the end may still come), ``self.pipeline.spawn(work)``; at last push, then ``self.pipeline.free()``.
  Spawned work is cancelled when the request is over.
* ``self.down.fail(problem)`` ends the answer: as a problem while no head has passed, else by cutting the connection.
  A stage that ends a stream in good order pushes its last data and ``end``; the deployment is dropped at once. It may
  set ``self.pipeline.outcome`` and ``error_code`` for the metering row (as a cache does: ``cached``).
* ``over`` is called exactly once, however the request ends, with the row's outcome: ``ok``, ``cached``, ``cancelled``,
  ``cut``, ``failed`` or ``rejected``. Nothing can be pushed any more.

Usage is read from the deployment's answer before any stage sees it. The dialect of a deployment is a stage too (see
``Translation``): it belongs to one attempt and sits between the other stages and the deployment.
"""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from gateway.core import usage as usages
from gateway.core.problems import Rejected, is_error
from gateway.core.usage import NOTHING, BodyReader, StreamReader, Usage

if TYPE_CHECKING:
    from gateway.core.exchange import Exchange

EVENT_STREAM: Final = b"text/event-stream"
JSON: Final = b"application/json"
Header = tuple[bytes, bytes]


class Garbled(Exception):
    """The deployment's answer cannot be understood."""


def encodes(name: bytes, value: bytes) -> bool:
    """Whether a header, its name in lower case, says that the body is compressed: it can be passed on, not read."""
    return name == b"content-encoding" and value.lower() not in (b"", b"identity")


class AnswerHead:
    """Status and headers of an answer; header names are in lower case, those of the framing are not among them."""

    __slots__ = ("headers", "status")

    def __init__(self, status: int, headers: list[Header]) -> None:
        self.status = status
        self.headers = headers

    @property
    def content_type(self) -> bytes:
        return next((value for name, value in self.headers if name == b"content-type"), b"").lower()

    @property
    def encoded(self) -> bool:
        return any([encodes(name, value) for name, value in self.headers])

    @property
    def event_stream(self) -> bool:
        """Whether it is one whose events can be read."""
        return self.content_type.startswith(EVENT_STREAM) and not self.encoded

    def retype(self, content_type: bytes) -> None:
        """The head of another body, of this type."""
        self.headers = [h for h in self.headers if h[0] not in (b"content-encoding", b"content-type")]
        self.headers.append((b"content-type", content_type))


class Outgoing:
    """A request to a deployment. ``path`` is what follows ``prefix``, the path of the deployment's URL."""

    __slots__ = ("body", "headers", "path", "prefix")

    def __init__(self, prefix: str, path: str, headers: list[Header], body: bytes) -> None:
        self.prefix = prefix
        self.path = path
        self.headers = headers
        self.body = body

    def retype(self, content_type: bytes) -> None:
        """Another content type in place of the present one."""
        self.headers = [header for header in self.headers if header[0].lower() != b"content-type"]
        self.headers.append((b"content-type", content_type))


class Sink:
    """Takes an answer in order: ``head`` once, ``data`` any number of times, then ``end``, or ``fail`` instead."""

    def head(self, head: AnswerHead) -> None:
        raise NotImplementedError

    def data(self, data: bytes) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def fail(self, problem: Rejected) -> None:
        raise NotImplementedError


class Stage(Sink):
    """Passes everything on; subclasses override what they care for."""

    def __init__(self, exchange: "Exchange") -> None:
        self.exchange = exchange
        self.pipeline: Pipeline
        self.down: Sink  # the next one towards the client

    async def request(self) -> bool:
        """True: this stage has answered. Raises Rejected."""
        return False

    def outgoing(self, request: Outgoing) -> None:
        """Before each attempt. Raises Rejected."""

    def head(self, head: AnswerHead) -> None:
        self.down.head(head)

    def data(self, data: bytes) -> None:
        self.down.data(data)

    def end(self) -> None:
        self.down.end()

    def fail(self, problem: Rejected) -> None:
        self.down.fail(problem)

    def over(self, outcome: str) -> None:
        """The request has ended."""


class Translation(Stage):
    """The stage of a deployment whose dialect is not the client's. It reads the usage, as only it knows the shape."""

    usage: Usage | None = None
    usage_source = "upstream"
    events = 0  # pieces of output so far, each about a token


StageMaker = Callable[["Exchange"], Stage]
TranslationMaker = Callable[["Exchange"], Translation]


class Pipeline(Sink):
    """The stages of one request. A form of the gateway makes it the client's end by overriding the sink's methods."""

    def __init__(self, exchange: "Exchange", makers: tuple[StageMaker, ...]) -> None:
        self.exchange = exchange
        self.outcome = ""  # for the row, in place of the usual one
        self.error_code = ""
        self.holds = 0
        self.heard = False  # a deployment has answered
        self.complete = False  # it has said everything; the stages may still hold some of it
        self.answered: Usage | None = None  # what an answer of a stage itself once took
        self.translation: Translation | None = None
        self.reader: StreamReader | None = None
        self.kept = BodyReader()
        self.refused = False  # the deployment's answer is an error
        self.stages = tuple(make(exchange) for make in makers)
        self.entry: Sink = self  # where a deployment's answer goes in
        for stage in self.stages:
            stage.pipeline, stage.down, self.entry = self, self.entry, stage
        self._innermost = self.entry

    # --- what stages call ---------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Stop reading the deployment's answer, until ``free`` was called as often."""
        self.holds += 1

    def free(self) -> None:
        self.holds -= 1

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something for this request beside; it is cancelled when the request is over."""
        raise NotImplementedError

    # --- what the form calls ------------------------------------------------------------------------------------

    async def request(self) -> bool:
        """True: a stage has answered. Raises Rejected."""
        for stage in self.stages:
            if await stage.request():
                return True
        return False

    def attempt(self, make: TranslationMaker | None, request: Outgoing) -> None:
        """Have the stages make the request for a deployment. Raises Rejected."""
        self.entry, self.translation = self._innermost, None
        for stage in self.stages:
            stage.outgoing(request)
        if make is not None:
            self.translation = make(self.exchange)
            self.translation.pipeline, self.translation.down = self, self._innermost
            self.entry = self.translation
            self.translation.outgoing(request)

    def upstream_head(self, head: AnswerHead, hide_usage: bool) -> None:
        """``hide_usage``: the usage event was asked for by us and is taken out again."""
        self.heard = True
        self.refused = is_error(head.status)
        self.kept.encoded = head.encoded
        if self.translation is None and head.event_stream:
            self.reader = StreamReader(hide_usage)
        self.entry.head(head)

    def upstream_data(self, data: bytes) -> None:
        """Raises Garbled."""
        if self.reader is not None:
            data = self.reader.feed(data)
        elif self.translation is None:
            self.kept.feed(data)
        if data:
            self.entry.data(data)

    def upstream_end(self) -> None:
        """Raises Garbled."""
        self.complete = True
        rest = self.reader.rest() if self.reader is not None else b""
        if rest:
            self.entry.data(rest)
        self.entry.end()

    def usage(self) -> tuple[Usage, str]:
        """What the deployment used so far, and how that is known."""
        exchange, translation, whole = self.exchange, self.translation, self.complete
        if self.answered is not None:
            return self.answered, "upstream"
        if exchange.deployment is None or self.refused:
            return NOTHING, "none"
        if translation is None:
            return usages.used(self.reader, self.kept, exchange, whole)
        if whole and translation.usage is not None:
            return translation.usage, translation.usage_source
        return usages.read_or_counted(translation.usage, translation.events, exchange, whole)

    def over(self, outcome: str) -> None:
        for stage in self.stages:
            stage.over(outcome)
        if self.translation is not None:
            self.translation.over(outcome)
