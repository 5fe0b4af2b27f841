"""One client connection: HTTP/1.1 requests in, in order, each handed to a job that answers it.

llhttp (httptools) parses, strictly; what it refuses, what is too large and what is too slow is answered and closed.
"""

import logging
from typing import Final, cast

import httptools

from gateway.connection import Job, Streamed
from gateway.core.headers import path_and_query
from gateway.core.multipart import is_form
from gateway.core.problems import Rejected
from gateway.flow import Flow
from gateway.form_flow import FormFlow
from gateway.header_names import HeaderNames, KnownRequest, names_of
from gateway.repeated_head import LESSONS
from gateway.side_call import SideCall
from gateway.side_upload import UPLOADS, SideUpload
from gateway.strict import Strict

log = logging.getLogger("gateway.front")
JSON: Final = b"application/json"
SMALL_BODY_BYTES: Final = 64 << 10  # of a refused request this much is read, so that the connection can be kept
MANY_PARTS: Final = 256
LINGER_S: Final = 2.0


class Front(Strict):
    """Reads requests and hands them to jobs.

    Two of llhttp's callbacks are methods of a list: they cost no Python frame.
    """

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self.hot.tell_time()
        if self._same is not None and self._again(data):
            return
        self._segment_bytes = len(data)
        at_start = not self._in_body and self._head_bytes <= 0
        parts = len(self._parts)
        try:
            self._feed(data)
        except httptools.HttpParserCallbackError:
            log.exception("request handling failed")
            self.transport.abort()
        except httptools.HttpParserError:
            self._fail(Rejected("invalid_request", "This is not a valid HTTP/1.1 request."))
        else:
            if self._in_body and not self._deaf:
                self._part_of_body(len(data), len(self._parts) > parts)
            elif self._urls or self._head_bytes > 0:
                self._part_of_head(len(data))
            elif self._lesson is not None:
                self._learn(data, at_start)

    def _again(self, data: bytes) -> bool:
        """Answer a request that differs from the one before in nothing but its body: no need to parse it."""
        same = self._same
        assert same is not None
        body = same.body_of(data)
        if body is None:
            self._same = None  # the parser may stop within a request now
            return False
        self._lessons = LESSONS
        self._since_s = self.hot.now_s
        asked = same.meaning
        flow = self._inference(asked.path, asked.named, asked.names, asked.token)
        flow.keep_alive = not self.hot.draining
        if not self._may_run() or len(body) > self.hot.max_body_bytes:
            self._complete(flow, body)
        else:  # the same, compiled: a flow's attributes are at hand, those of a job are looked up
            flow.body = body
            self._job = flow
            self.hot.run_soon(flow)
        return True

    def _learn(self, data: bytes, at_start: bool) -> None:
        lesson, self._lesson = self._lesson, None
        if lesson is not None and at_start and data.startswith(b"POST "):
            self._lessons -= 1
            self._same = self.hot.heads.learn(data, *lesson)

    def _feed(self, data: bytes) -> None:
        """The parser skips the body of a request that offers an upgrade: such a request is read once more, without the
        offer. RFC 9110, 7.8: a server may ignore it. Raises HttpParserError."""
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head_without_offer() + data[upgrade.args[0] :]
            else:
                return

    def on_headers_complete(self) -> None:
        self._in_body = True
        self._head_bytes = -1
        self._since_s = self.hot.now_s
        if (problem := self._unsound_head()) is not None:
            self._fail(problem)

    def on_chunk_header(self) -> None:
        """What follows the last chunk are trailers, no headers (RFC 9110, 6.5.1), though the parser tells them so."""
        if self._incoming is None and not self._deaf:
            self._start()
        self._framing_bytes = -1
        self._named.clear()

    def on_message_complete(self) -> None:
        if self._deaf or self._parser.should_upgrade():
            return
        job = self._incoming or self._begin()
        parts = self._parts
        body = parts[0] if len(parts) == 1 and self._form is None else self._whole_body()
        self._incoming = None
        self._in_body = False
        keep_alive = self.keeps_alive()
        if keep_alive and self._lessons > 0 and type(job) is Flow:
            self._lesson = body, KnownRequest(job.path, self._named.copy())
        self._named.clear()
        self._repeated_bytes = 0
        self._urls.clear()
        parts.clear()
        self._since_s = self.hot.now_s
        if job is self._job:
            cast(Streamed, job).last(body)
            return
        job.keep_alive = keep_alive
        self._complete(job, body)

    def _complete(self, job: Job, body: bytes) -> None:
        """The request is all there: answer it when it is its turn."""
        if len(body) > self.hot.max_body_bytes and job.problem is None:
            job.problem = Rejected("body_too_large")
        job.body = body
        if self._may_run():
            self._job = job
            job.run()
        else:
            self._enqueue(job)

    def _part_of_head(self, size: int) -> None:
        """More of the head is to come: mind its size and the time."""
        if self._head_bytes <= 0:
            self._since_s = self.hot.now_s
            size = self._size_of_head() if self._head_bytes else size  # the segment may hold other requests as well
            self._head_bytes = 0
        self._head_bytes += size
        if self._head_bytes > self.hot.settings.max_header_bytes:
            self._fail(Rejected("header_too_large"))

    def _part_of_body(self, size: int, payload: bool) -> None:
        """More of the body is to come: check the key before anything is kept, and mind the size."""
        job = self._incoming
        if job is None:
            job = self._start()
            if not self._wants_body(job):
                self._last(job)
                return
        self._body_bytes += size
        if job.problem is not None:
            self._parts.clear()
            if self._body_bytes > SMALL_BODY_BYTES:
                self._last(job)
        elif self._body_bytes > job.max_body_bytes:
            self._refuse_body(job, Rejected("body_too_large"))
        elif self._chunked and self._endless(size, payload):
            self._refuse_body(job, Rejected("header_too_large"))
        elif self._form is not None:
            self._pass_form(self._form)
        elif len(self._parts) > MANY_PARTS:
            if self._long_body is None:
                self._long_body = bytearray()
            self._long_body += b"".join(self._parts)
            self._parts.clear()

    def _wants_body(self, job: Job) -> bool:
        """Nobody has to send a long body, or one that waits for leave, to hear that it is of no use."""
        stated = names_of(self._named).body_bytes(self._named)
        if self._form is None and job.problem is None and stated > job.max_body_bytes:
            job.problem = Rejected("body_too_large")
        if job.problem is not None:
            return not self._expects and stated <= SMALL_BODY_BYTES
        if self._expects and self._may_run():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _pass_form(self, form: Streamed) -> None:
        """Let a large form begin as soon as it can, and pass on what comes of it."""
        data = b"".join(self._parts)
        self._parts.clear()
        try:
            if form.more(data) and self._may_run():
                self._job = form
                form.begin()
        except Rejected as problem:
            self._refuse_body(form, problem.with_traceback(None))

    def _refuse_body(self, job: Job, problem: Rejected) -> None:
        if job is self._job:
            cast(Streamed, job).break_off(problem)
        else:
            job.problem = problem
            self._last(job)

    def _start(self) -> Job:
        """The body of a request begins."""
        self._body_bytes = 0
        self._incoming = job = self._begin()
        return job

    def _begin(self) -> Job:
        """The head is complete: find out what is asked, and by whom."""
        urls = self._urls
        url = urls[0] if len(urls) == 1 else b"".join(urls)
        method = self._parser.get_method()
        known = self.hot.paths.get(url)
        path, query = url, b""
        if known is None:
            path, query = path_and_query(url)
            known = self.hot.paths.get(path)
        if known is not None and method == b"POST":
            names = names_of(self._named)
            flow = self._inference(known, self._named, names, names.token(self._named))
            if self._http_1_0:
                flow.http_1_0, self._expects = True, False
            return flow
        self._expects = False
        if method == b"POST" and path == UPLOADS:
            self._expects = names_of(self._named).expect is not None
            self._form = SideUpload(self.hot, self, method, path, query, list(self._named.items()))
            return self._form
        return SideCall(self.hot, self, method, path, query, list(self._named.items()))

    def _inference(self, path: str, named: dict[bytes, bytes], names: HeaderNames, token: bytes) -> Flow:
        content_type = named[names.content_type] if names.content_type is not None else JSON
        if content_type != JSON and is_form(content_type):
            flow: Flow = self._form_flow(path, names, content_type)
        else:
            flow = Flow(self.hot, self, path)
        flow.content_type = content_type
        self._expects = names.expect is not None
        if names.request_id is not None:
            flow.name_by(named[names.request_id])
        if names.forwarded:
            flow.forwarded = names.passed_on(named)
        if names.staged:
            flow.headers = {lower: named[name] for lower, name in names.staged}
        if self.hot.tracer is not None:
            self.hot.trace(flow, named, names)
        try:
            self.hot.authorise(flow, self, token, named, names)
        except Rejected as problem:
            flow.problem = problem.with_traceback(None)  # whose frames hold the flow: a cycle that lives long
        return flow

    def _form_flow(self, path: str, names: HeaderNames, content_type: bytes) -> FormFlow:
        self._form = form = FormFlow(self.hot, self, path, content_type, names.body_bytes(self._named))
        return form

    def _fail(self, problem: Rejected) -> None:
        if self._deaf:
            return
        job = self._incoming
        if job is not None and job is self._job:
            self._refuse_body(job, problem)
            return
        if job is None or job.problem is None:
            job = SideCall(self.hot, self, b"GET", b"/", b"", [])
            job.problem = problem
        self._last(job)

    # --- time ---------------------------------------------------------------------------------------------------

    def sweep(self, now_s: float) -> None:
        """Once a second: end what takes too long."""
        settings, age_s = self.hot.settings, now_s - self._since_s
        if self._job is not None:
            self._job.sweep(now_s)
        elif self._lingers or self.transport.is_closing():
            if age_s > LINGER_S:
                self.transport.abort()
        elif self._in_body and not self._clogged:
            if age_s > settings.body_timeout_s:
                self._fail(Rejected("request_timeout"))
        elif self._head_bytes > 0 and not self._clogged:
            if age_s > settings.header_timeout_s:
                self._fail(Rejected("request_timeout"))
        elif age_s > settings.keep_alive_s or self.hot.draining:
            self.transport.close()
