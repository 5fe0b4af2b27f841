"""Which of a request's headers matter, found once per set of names: a client sends the same ones every time."""

from typing import Final

from gateway.core.headers import TO_STAGES, TO_UPSTREAM

REMEMBERED: Final = 2048
_known: Final[dict[tuple[bytes, ...], "HeaderNames"]] = {}


class HeaderNames:
    """The names as this client spells them; None where it does not send the header."""

    __slots__ = ("api_key", "authorization", "codings", "content_length", "content_type", "expect", "forwarded",
                 "forwarded_for", "hosts", "request_id", "staged", "traceparent",
                 "user_agent")  # fmt: skip

    def __init__(self, names: tuple[bytes, ...]) -> None:
        spelt = {name.lower(): name for name in names}
        self.authorization = spelt.get(b"authorization")
        self.api_key = spelt.get(b"x-api-key") or spelt.get(b"api-key")
        self.content_length = spelt.get(b"content-length")
        self.content_type = spelt.get(b"content-type")
        self.request_id = spelt.get(b"x-request-id")
        self.forwarded_for = spelt.get(b"x-forwarded-for")
        self.hosts = tuple(name for name in names if name.lower() == b"host")
        self.codings = tuple(name for name in names if name.lower() == b"transfer-encoding")
        self.user_agent = spelt.get(b"user-agent")
        self.traceparent = spelt.get(b"traceparent")
        self.expect = spelt.get(b"expect")
        self.forwarded = tuple(name for lower, name in spelt.items() if lower in TO_UPSTREAM)
        self.staged = tuple((lower, name) for lower, name in spelt.items() if lower in TO_STAGES)

    def token(self, named: dict[bytes, bytes]) -> bytes:
        """The API key, empty when there is none."""
        if self.authorization is not None:
            value = named[self.authorization]
            if value[:7] == b"Bearer " or value[:7].lower() == b"bearer ":
                return value[7:].strip()
        return named[self.api_key].strip() if self.api_key is not None else b""

    def body_bytes(self, named: dict[bytes, bytes]) -> int:
        """The length that is stated, -1 when none is; the parser has seen that it is a number."""
        return int(named[self.content_length]) if self.content_length is not None else -1

    def passed_on(self, named: dict[bytes, bytes], but: bytes | None = None) -> bytes:
        """Header lines for the deployment; ``but`` is left out."""
        return b"".join([b"%b: %b\r\n" % (name, named[name]) for name in self.forwarded if name != but])


def names_of(named: dict[bytes, bytes]) -> HeaderNames:
    names = tuple(named)
    found = _known.get(names)
    if found is None:
        found = HeaderNames(names)
        if len(_known) < REMEMBERED and sum(map(len, names)) < 2048:
            _known[names] = found
    return found


class KnownRequest:
    """What a head asks for."""

    __slots__ = ("named", "names", "path", "token")

    def __init__(self, path: str, named: dict[bytes, bytes]) -> None:
        self.path = path
        self.named = named
        self.names = names_of(named)
        self.token = self.names.token(named)
