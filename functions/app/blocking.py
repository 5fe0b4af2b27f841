"""Rules by which every gateway refuses callers before it looks at their key (docs/gateway.md)."""

from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, model_validator

from functions.app.schemas import Request, Text

Kind = Literal["cidr", "user_agent", "country", "rate"]
_LEAST_AGENT = 3  # shorter parts are in the names of too many programs


class BlockingRuleCreate(Request):
    """``cidr``: a network, such as 203.0.113.0/24. ``user_agent``: a part of the header, in any case. ``country``: two
    letters of ISO 3166-1, told by the GeoIP file of a gateway. ``rate``: requests per minute of one client."""

    kind: Kind
    value: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    note: Text = Field("", description="Why, for people.")

    @model_validator(mode="after")
    def _sound(self) -> "BlockingRuleCreate":
        """What gateways understand, in one way of writing it: they would refuse a whole config for one bad rule."""
        self.value = _READ[self.kind](self.value)
        return self


class BlockingRule(BaseModel):
    id: str
    kind: Kind
    value: str
    note: str
    created_by: str
    created_at_ms: int


def _network(value: str) -> str:
    network = ip_network(value, strict=False)
    if network.prefixlen == 0:
        raise ValueError("the network holds every address: all callers would be refused")
    return str(network)


def _agent(value: str) -> str:
    if not value.isascii() or not value.isprintable() or len(value) < _LEAST_AGENT:
        raise ValueError(f"a part of a User-Agent header has {_LEAST_AGENT} or more printable ASCII characters")
    return value.lower()


def _country(value: str) -> str:
    if len(value) != 2 or not value.isascii() or not value.isalpha():
        raise ValueError("a country is two letters of ISO 3166-1, such as NL")
    return value.upper()


def _rate(value: str) -> str:
    if not value.isascii() or not value.isdigit() or not 0 < int(value[:12]) < 10**9:
        raise ValueError("a rate is a whole number of requests per minute from 1 to 999999999")
    return str(int(value))


_READ = {"cidr": _network, "user_agent": _agent, "country": _country, "rate": _rate}
