"""What llhttp lets pass, and a server has to refuse (RFC 9112), to ignore or to bound."""

from typing import Final

import httptools

from gateway.connection import LINE_BYTES, Connection
from gateway.core.headers import HOST, unsound_head, unsound_target
from gateway.core.problems import Rejected
from gateway.header_names import names_of

SLASH: Final = 0x2F
ONCE: Final = frozenset({b"host", b"transfer-encoding"})
TWICE: Final = b", "  # no value that the parser tells: it trims them


class Strict(Connection):
    """Checks what the parser tells of heads, chunks and trailers."""

    __slots__ = ()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of several lines the last one counts, but for those that must be alone."""
        named = self._named
        if name in named:
            if name.lower() in ONCE:
                value = TWICE
            self._repeated_bytes += len(name) + len(value) + LINE_BYTES
            del named[name]  # then the last line is the last name, too: of two spellings the later one counts
        named[name] = value

    def _unsound_head(self) -> Rejected | None:
        """Why the head that is complete cannot be taken."""
        if self._segment_bytes > self.hot.settings.max_header_bytes < self._size_of_head():
            return Rejected("header_too_large")
        named = self._named
        names = names_of(named)
        self._chunked, self._framing_bytes = bool(names.codings), -1
        hosts = [named[name] for name in names.hosts]
        if self._urls[0][0] != SLASH and (problem := unsound_target(b"".join(self._urls))) is not None:
            return problem
        if len(hosts) == 1 and not names.codings and HOST.fullmatch(hosts[0]) is not None:
            return None  # nearly all
        hosts += [TWICE] if TWICE in hosts else []
        return unsound_head(hosts, [named[name] for name in names.codings], self._http_1_0)

    def _head_without_offer(self) -> bytes:
        method = self._parser.get_method()
        if method == b"CONNECT":
            raise httptools.HttpParserError("a tunnel")
        lines = [b"%b: %b\r\n" % header for header in self._named.items() if header[0].lower() != b"upgrade"]
        version = self._parser.get_http_version().encode()
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, b"".join(self._urls), version, b"".join(lines))
        self._named.clear()
        self._urls.clear()
        if not self._parser.should_keep_alive():  # then it reads no more, not even the same again
            self._parser = httptools.HttpRequestParser(self)
        return head

    def _endless(self, size: int, payload: bool) -> bool:
        """Whether a chunk's extension or the trailers, of which the parser tells nothing before they end, go on for
        longer than a head may. ``size`` of the segment that came, ``payload``: it held some of the body."""
        if payload or self._framing_bytes < 0:  # or a body or chunk began in it
            self._framing_bytes = 0
        else:
            self._framing_bytes += size
        return self._framing_bytes > self.hot.settings.max_header_bytes
