"""Blocking rules: callers that are refused before anyone looks at their key."""

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from gateway.core.authorise import inside
from gateway.core.problems import Rejected
from gateway.core.snapshot import Snapshot

MINUTE_MS = 60_000
REMEMBERED_CLIENTS = 1 << 16
IPV6_HOST_BITS = 64  # a household has all addresses of a /64


class Rates:
    """Requests per client in the minute under way. When there are too many clients the one seen first is forgotten."""

    def __init__(self, capacity: int = REMEMBERED_CLIENTS) -> None:
        self.capacity = capacity
        self.counts: dict[int | str, int] = {}
        self._minute = 0

    def count(self, client_ip: str, now_ms: int) -> int:
        """One more request; how many it makes in this minute."""
        minute = now_ms // MINUTE_MS
        if minute != self._minute:
            self._minute = minute
            self.counts.clear()
        client = _client(client_ip)
        count = self.counts[client] = self.counts.get(client, 0) + 1
        if len(self.counts) > self.capacity:
            del self.counts[next(iter(self.counts))]
        return count


class Blocking:
    """The rules with what they need to know: the countries of addresses (None: not known) and who called how often."""

    def __init__(self) -> None:
        self.country_of: Callable[[str], str | None] = lambda client_ip: None
        self.rates = Rates()

    def refuse(self, snapshot: Snapshot, client_ip: str, user_agent: str, now_ms: int) -> None:
        """Raises Rejected when a rule fits the caller, who has made one more request."""
        self.refuse_known(snapshot, client_ip, user_agent)
        if snapshot.client_rate is not None and self.rates.count(client_ip, now_ms) > snapshot.client_rate:
            wait_s = (MINUTE_MS - now_ms % MINUTE_MS) // 1000 + 1
            raise Rejected("rate_limit_exceeded", retry_after_s=wait_s)

    def refuse_known(self, snapshot: Snapshot, client_ip: str, user_agent: str) -> None:
        """Raises Rejected when a rule fits the caller, however often that one called."""
        if snapshot.networks and inside(client_ip, snapshot.networks):
            raise Rejected("blocked")
        if snapshot.agents and any(part in user_agent.lower() for part in snapshot.agents):
            raise Rejected("blocked")
        if snapshot.countries and self.country_of(client_ip) in snapshot.countries:
            raise Rejected("blocked")


def _client(client_ip: str) -> int | str:
    """Whom a rate is counted for: an IPv4 address or an IPv6 network."""
    try:
        address = ip_address(client_ip)
    except ValueError:
        return client_ip[:64]
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return int(address) >> IPV6_HOST_BITS
    return str(address.ipv4_mapped or address) if isinstance(address, IPv6Address) else client_ip
