"""Which headers pass, in either direction: only those named here, so nothing internal leaks in or out."""

from collections.abc import Mapping
from typing import Final

from gateway.core.authorise import inside
from gateway.core.snapshot import Network

USER_AGENT: Final = (b"user-agent", b"foundry-gateway")  # some providers' front doors turn away who names none
TO_UPSTREAM = frozenset({
    b"anthropic-beta", b"anthropic-version", b"baggage", b"idempotency-key", b"openai-beta", b"traceparent",
    b"tracestate",
})  # fmt: skip
TO_STAGES = frozenset({b"anthropic-beta", b"anthropic-version", b"cache-control", b"openai-beta"})
TO_CLIENT = frozenset({
    b"cache-control", b"content-disposition", b"content-language", b"content-type", b"openai-model",
    b"openai-processing-ms", b"openai-version", b"retry-after", b"x-foundry-source",
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
