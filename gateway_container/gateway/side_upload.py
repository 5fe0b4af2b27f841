"""A request of the side application whose body is taken while it comes: the upload of a file, at the pace at which it
is kept."""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from gateway.core.problems import Rejected
from gateway.side_call import MAX_SIDE_BODY_BYTES, SideCall

if TYPE_CHECKING:
    from gateway.front import Front
    from gateway.hot import Hot

UPLOADS: Final = b"/v1/files"
MAX_FILE_BYTES: Final = 200 << 20
MAX_UPLOAD_BYTES: Final = MAX_FILE_BYTES + (64 << 10)  # with what a form has around its file
KEEPING_S: Final = 900.0  # for a file that has come, on its way to object storage: the client hears nothing meanwhile
AHEAD_BYTES: Final = 1 << 20  # that have come and are not taken yet


class SideUpload(SideCall):
    """Begins with the first piece of its body, so that a wrong key is answered before the rest has come."""

    def __init__(
        self, hot: "Hot", front: "Front", method: bytes, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]
    ) -> None:
        super().__init__(hot, front, method, path, query, headers)
        self.max_body_bytes = MAX_UPLOAD_BYTES
        self._pieces: list[bytes] = []
        self._ahead_bytes = 0
        self._begun = False
        self._ended = False
        self._broken: Rejected | None = None
        self._came = asyncio.Event()

    def more(self, data: bytes) -> bool:
        """A piece of the body, not its last. True: ``begin`` may be called. Raises Rejected."""
        self._take(data)
        if self._begun:
            return False
        if self._ahead_bytes > MAX_SIDE_BODY_BYTES:  # it waits behind others on the connection
            raise Rejected("body_too_large", "Send large files on a connection of their own.")
        return True

    def begin(self) -> None:
        self.keep_alive = self.front.keeps_alive()
        self._start()

    def _start(self) -> None:
        self._begun = True
        super().run()

    def run(self) -> None:
        """The body was whole before it was this request's turn."""
        self._pieces = [self.body]
        self._end()
        self._start()

    def taken(self) -> bytes:
        """What is held, which is held no longer."""
        held = b"".join(self._pieces)
        self._pieces.clear()
        self._ahead_bytes = 0
        return held

    def last(self, data: bytes) -> None:
        self._end()
        self._take(data)
        self.front.transport.resume_reading()

    def _end(self) -> None:
        self._ended, self.max_silence_s = True, KEEPING_S

    def break_off(self, problem: Rejected) -> None:
        """The body cannot become whole."""
        self.keep_alive = False
        self._broken = problem
        self._came.set()

    def _take(self, data: bytes) -> None:
        self._heard_s = self.hot.loop.time()
        self._pieces.append(data)
        self._ahead_bytes += len(data)
        self._came.set()
        if self._begun and self._ahead_bytes > AHEAD_BYTES and not self._ended:
            self.front.transport.pause_reading()

    async def _receive(self) -> dict[str, Any]:
        """Raises Rejected when the body breaks off."""
        while not self._pieces and not self._ended and self._broken is None:
            self._came.clear()
            await self._came.wait()
        if self._broken is not None:
            raise self._broken
        if self._told:
            return await super()._receive()
        self.body = self.taken()
        self._told = self._ended
        if not self._ended and not self.front.transport.is_closing():
            self.front.transport.resume_reading()
        return {"type": "http.request", "body": self.body, "more_body": not self._ended}

    async def _send(self, message: Any) -> None:
        if not self._ended:
            self.keep_alive = False  # where the next request begins is not known
        await super()._send(message)
