"""What gateways do with the requests of an endpoint, as far as its owner decides (docs/gateway.md)."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from functions.app.fields import Name, outside

Routing = Literal["weighted", "least_outstanding", "prefix_affinity", "predicted_latency"]
PersonalData = Literal["email", "phone", "iban", "credit_card", "us_ssn", "ip_address", "secret"]
Direction = Literal["input", "output"]
CoalesceMs = Annotated[int, Field(ge=0, le=1000, strict=True)]
_Pattern = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Url = Annotated[str, StringConstraints(max_length=500)]
_PII = frozenset(get_args(PersonalData))
_CALLED = ("http", "bedrock")
_PATTERN_CHARS = 50_000  # an endpoint is one item of the table
_MONTH_S = 31 * 24 * 3600
_HOUR_S = 3600
_SHORTEST_SLEEP_S = 900  # as long as one answer may take
_HELD_MAX = 10_000  # each holds its body in memory meanwhile


class Guardrail(BaseModel, extra="forbid"):
    """``pii`` finds personal data (``patterns``: of which kinds, none means all), ``deny`` words, ``regex`` patterns;
    ``http`` and ``bedrock`` ask a scanner. Gateways run patterns in linear time: no look-around, back-reference or
    anchor; an endpoint whose guardrails a gateway cannot use is closed."""

    id: Name
    kind: Literal["pii", "deny", "regex", "http", "bedrock"]
    on: Annotated[list[Direction], Field(min_length=1, max_length=2)] = ["input", "output"]
    action: Literal["block", "redact", "observe"] = "block"
    patterns: Annotated[list[_Pattern], Field(max_length=500)] = []
    url: Url | None = None
    credential: Name | None = Field(None, description="A credential of the project, stored or mounted at gateways.")
    timeout_ms: Annotated[int, Field(ge=1, le=60_000, strict=True)] = 2000
    fail_open: bool = Field(False, description="Let pass what the scanner does not answer for.")
    window_chars: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 1000

    @property
    def scanner_url(self) -> str:
        """Whom gateways may ask, ``""`` for nobody: they close an endpoint whose scanner they may not ask."""
        try:
            return outside(self.url or "")
        except ValueError:
            return ""

    @model_validator(mode="after")
    def _complete(self) -> "Guardrail":
        if (self.url is not None) != (self.kind in _CALLED):
            raise ValueError("url is for the kinds http and bedrock, and needed there")
        if self.kind in ("deny", "regex") and not any(pattern.strip() for pattern in self.patterns):
            raise ValueError(f"a guardrail of the kind {self.kind} needs patterns")
        if self.kind == "pii" and not _PII.issuperset(self.patterns):
            raise ValueError(f"patterns of the kind pii are some of {', '.join(sorted(_PII))}")
        if self.kind == "regex":
            _refuse_broken(self.patterns)
        return self


def _refuse_broken(patterns: list[str]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"{pattern!r} is not a pattern: {error}") from None


def _sound(guardrails: list[Guardrail]) -> list[Guardrail]:
    if len({guardrail.id for guardrail in guardrails}) < len(guardrails):
        raise ValueError("two guardrails have the same id")
    if sum(len(pattern) for guardrail in guardrails for pattern in guardrail.patterns) > _PATTERN_CHARS:
        raise ValueError(f"all patterns together may have {_PATTERN_CHARS:,} characters")
    return guardrails


class Share(BaseModel, extra="forbid"):
    """Some of an endpoint's requests for another endpoint of the project: it answers them (a canary), or as a
    ``shadow`` gets copies whose answers are measured and thrown away."""

    endpoint: Name
    weight: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, description="Which part of the requests.")]
    shadow: bool = False


class Policy(BaseModel, extra="forbid"):
    """``cache_ttl_s``: how long answers are kept and repeated, 0 for not at all. ``coalesce_ms``: how long chunks of a
    stream may wait for each other while a gateway is busy. ``fallbacks``: other endpoints of the project, asked in turn
    when this one has no deployment left; those that have fallbacks of their own are passed over. ``hold_s``: how long a
    request waits for a sleeping deployment, which it wakes; 0: it is refused, and nothing is woken. ``hold_queue``: how
    many may wait so for one deployment at each process of a gateway. ``sleep_after_s``: without a request for so long
    its deployments are put to sleep, 0 for never; it needs ``hold_s``, so that requests wake them again."""

    routing: Routing = "least_outstanding"
    retries: Annotated[int, Field(ge=0, le=10, strict=True)] = 2
    cache_ttl_s: Annotated[int, Field(ge=0, le=_MONTH_S, strict=True)] = 0
    coalesce_ms: CoalesceMs = 0
    guardrails: Annotated[list[Guardrail], Field(max_length=32), AfterValidator(_sound)] = []
    traffic: Annotated[list[Share], Field(max_length=8)] = []
    fallbacks: Annotated[list[Name], Field(max_length=8)] = []
    hold_s: Annotated[int, Field(ge=0, le=_HOUR_S, strict=True)] = 0
    hold_queue: Annotated[int, Field(ge=1, le=_HELD_MAX, strict=True)] = 64
    sleep_after_s: Annotated[int, Field(ge=0, le=_MONTH_S, strict=True)] = 0

    @property
    def others(self) -> set[str]:
        """The endpoints that answer some of the requests, or get copies of them."""
        return {*self.fallbacks, *(share.endpoint for share in self.traffic)}

    @property
    def canary_weight(self) -> float:
        return sum(share.weight for share in self.traffic if not share.shadow)

    @model_validator(mode="after")
    def _divided(self) -> "Policy":
        if len({(share.endpoint, share.shadow) for share in self.traffic}) < len(self.traffic):
            raise ValueError("traffic: an endpoint is named twice; give it one share")
        if self.canary_weight >= 1:
            raise ValueError("traffic: canaries together get less than all requests")
        if self.canary_weight and self.routing != "weighted":
            raise ValueError("traffic: a canary needs routing weighted; the other policies keep no shares")
        return self

    @model_validator(mode="after")
    def _long_enough(self) -> "Policy":
        if 0 < self.sleep_after_s < _SHORTEST_SLEEP_S:
            raise ValueError(f"sleep_after_s is 0 or at least {_SHORTEST_SLEEP_S}, as long as one answer may take")
        return self


class PolicySet(Policy):
    """What an owner asks for: scanners that lie outside. Earlier ones are still read (see ``scanner_url``)."""

    @field_validator("guardrails")
    @classmethod
    def _outside(cls, guardrails: list[Guardrail]) -> list[Guardrail]:
        return [g if g.url is None else g.model_copy(update={"url": outside(g.url)}) for g in guardrails]


def _upgraded(stored: Any) -> Any:
    """Of an endpoint named twice the first share counts: such policies were stored before they were refused."""
    if not isinstance(stored, dict):
        return stored
    shares: dict[tuple[str, bool], Any] = {}
    for share in stored.get("traffic", []):
        shares.setdefault((share["endpoint"], share["shadow"]), share)
    return {**stored, "traffic": list(shares.values())}


StoredPolicy = Annotated[Policy, BeforeValidator(_upgraded)]
