"""Which headers pass, in either direction: only those named here, so nothing internal leaks in or out."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.core.authorise import inside
from gateway.core.problems import Rejected
from gateway.core.snapshot import Network

ABSOLUTE: Final = re.compile(rb"https?://[^/?#]+", re.IGNORECASE)
# RFC 3986, 3.2.2, without the comma, which no name of a host has and a list of several would.
HOST: Final = re.compile(rb"(?:\[[0-9A-Za-z:.%_~-]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(?::[0-9]*)?")
# Of every request to a deployment: some providers' front doors turn away who names no agent; and what is compressed
# cannot be read on its way, which it may be where nothing is said of it (RFC 9110, 12.5.3).
OWN: Final = ((b"user-agent", b"foundry-gateway"), (b"accept-encoding", b"identity"))
TO_UPSTREAM = frozenset({
    b"anthropic-beta", b"anthropic-version", b"baggage", b"idempotency-key", b"openai-beta", b"traceparent",
    b"tracestate",
})  # fmt: skip
TO_STAGES = frozenset({b"anthropic-beta", b"anthropic-version", b"cache-control", b"openai-beta"})
TO_CLIENT = frozenset({
    b"cache-control", b"content-disposition", b"content-encoding", b"content-language", b"content-type",
    b"openai-model", b"openai-processing-ms", b"openai-version", b"retry-after", b"x-foundry-source",
    b"x-ratelimit-limit-requests", b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-requests",
    b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-requests", b"x-ratelimit-reset-tokens",
})  # fmt: skip


def token_of(named: Mapping[bytes, bytes]) -> bytes:
    """The API key from headers with lower-case names: Authorization, or Anthropic's or Azure's own header."""
    authorization = named.get(b"authorization", b"")
    if authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip()
    return (named.get(b"x-api-key") or named.get(b"api-key") or b"").strip()


def client_ip(peer: str, forwarded_for: bytes, trusted: tuple[Network, ...]) -> str:
    """The address of the client: the last one in X-Forwarded-For that is not itself a trusted proxy.

    The header counts only when the peer is a trusted proxy; anyone else can write anything into it.
    """
    if not trusted or not forwarded_for or not inside(peer, trusted):
        return peer
    hops = [hop.strip() for hop in forwarded_for.decode("latin-1").split(",")]
    for hop in reversed(hops):
        if not inside(hop, trusted):
            return hop
    return hops[0]


def path_and_query(target: bytes) -> tuple[bytes, bytes]:
    """Of a request's target, also of an absolute one (RFC 9112, 3.2.2): whatever host is asked for, it is this one."""
    absolute = ABSOLUTE.match(target)
    if absolute is not None:
        target = target[absolute.end() :]
        target = target if target.startswith(b"/") else b"/" + target
    path, _, query = target.partition(b"?")
    return path, query


def unsound_head(hosts: Sequence[bytes], codings: Sequence[bytes], http_1_0: bool) -> Rejected | None:
    """Why a request head is refused (RFC 9112, 3.2 and 6.1), None: it is not. ``hosts`` are the values of its Host
    lines, ``codings`` those of its Transfer-Encoding lines."""
    if codings and [coding.lower() for coding in codings] != [b"chunked"]:
        return Rejected("transfer_coding_unknown")
    if len(hosts) > 1 or (not hosts and not http_1_0):
        return Rejected("invalid_request", "A request has one Host header. Send exactly one.")
    if hosts and HOST.fullmatch(hosts[0]) is None:
        return Rejected("invalid_request", "The Host header is no host name or address, with or without a port.")
    return None


def unsound_target(target: bytes) -> Rejected | None:
    """Why an absolute target is refused: who is named before an ``@`` (RFC 9110, 4.2.4), or no host. That it names
    another host than the Host line is no reason: it counts instead (RFC 9112, 3.2.2), and this gateway is any host."""
    absolute = ABSOLUTE.match(target)
    if absolute is None or HOST.fullmatch(absolute[0].partition(b"//")[2]) is not None:
        return None
    return Rejected("invalid_request", "The request's target names no host, or a user. Send the path alone.")
