"""The config snapshot as it travels (docs/gateway.md); unknown fields are ignored, wrong types are refused."""

from typing import Literal

import msgspec

Provider = Literal["openai", "anthropic", "azure", "bedrock", "gemini", "mistral", "together"]
Routing = Literal["weighted", "least_outstanding", "prefix_affinity", "predicted_latency"]
Source = Literal["live", "twin", "verification"]
Direction = Literal["input", "output"]
Action = Literal["block", "redact", "observe"]


class Limits(msgspec.Struct, frozen=True):
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    budget_nanos: int | None = None


class Key(msgspec.Struct, frozen=True):
    id: str
    sha256: str
    project_id: str
    expires_at_ms: int | None = None
    models: list[str] | None = None
    cidrs: list[str] | None = None
    limits: Limits = Limits()
    coalesce_ms: float | None = None  # in place of the endpoint's


class Project(msgspec.Struct, frozen=True):
    id: str
    limits: Limits = Limits()
    capture_bodies: bool = False


class Price(msgspec.Struct, frozen=True):
    input_nanos_per_token: int = 0
    output_nanos_per_token: int = 0
    cached_nanos_per_token: int | None = None


class Deployment(msgspec.Struct, frozen=True):
    id: str
    url: str
    model: str
    weight: float = 1.0
    provider: Provider = "openai"
    credential_ref: str | None = None
    stream_usage: bool = True
    source: Source = "live"
    asleep: bool = False
    shadow: bool = False
    endpoint: str = ""  # whose it is, where another endpoint of the project shares its requests with it


class Guardrail(msgspec.Struct, frozen=True):
    id: str
    kind: Literal["pii", "deny", "regex", "http", "bedrock"]
    on: tuple[Direction, ...] = ("input", "output")
    action: Action = "block"
    patterns: list[str] = []
    # The others are for scanners that are called.
    url: str = ""
    credential_ref: str | None = None
    timeout_ms: int = 2000
    fail_open: bool = False
    window_chars: int = 1000  # of a stream, how much is scanned at a time


class Policy(msgspec.Struct, frozen=True):
    routing: Routing = "least_outstanding"
    retries: int = 2
    fallbacks: list[str] = []
    cache_ttl_s: float = 0
    coalesce_ms: float = 0
    guardrails: list[Guardrail] = []
    hold_s: float = 0
    hold_queue: int = 64


class Endpoint(msgspec.Struct, frozen=True):
    name: str
    tiers: list[list[Deployment]]
    project_ids: list[str] | None = None
    price: Price | None = None
    limits: Limits = Limits()
    max_output_tokens: int | None = None
    adapters: dict[str, str] = {}
    policy: Policy = Policy()
    problem: str = ""  # why it answers nothing


class Blocking(msgspec.Struct, frozen=True):
    id: str
    kind: Literal["cidr", "user_agent", "country", "rate"]
    value: str


class Credential(msgspec.Struct, frozen=True):
    ref: str
    sealed: str


class Snapshot(msgspec.Struct, frozen=True):
    version: int
    keys: list[Key]
    endpoints: list[Endpoint]
    projects: list[Project] = []
    blocking: list[Blocking] = []
    credentials: list[Credential] = []


class LeaseRequest(msgspec.Struct, frozen=True):
    scope: str
    kind: str
    lease_id: str
    seq: int
    spent: int
    held: int
    ceiling: int
    needed: int = 0
    window_ms: int | None = None
    close: bool = False


class Lease(msgspec.Struct, frozen=True):
    scope: str
    kind: str
    lease_id: str
    granted: int
    expires_at_ms: int
    retry_after_ms: int | None = None


class LeaseReply(msgspec.Struct, frozen=True):
    leases: list[Lease]


class Upload(msgspec.Struct, frozen=True):
    url: str
    headers: dict[str, str] = {}


class RequestCounts(msgspec.Struct, frozen=True):
    total: int = 0
    completed: int = 0
    failed: int = 0


class Batch(msgspec.Struct, frozen=True):
    id: str
    endpoint: str
    expires_at: int
    request_counts: RequestCounts


class BatchClaim(msgspec.Struct, frozen=True):
    """A batch that this gateway is to run; ``done_lines`` and ``done_bytes`` of its input are answered already."""

    batch: Batch
    project_id: str
    key_id: str
    address: str
    claim_id: str
    done_lines: int
    done_bytes: int
    input_bytes: int
    input_url: str


class BatchClaimAnswer(msgspec.Struct, frozen=True):
    claim: BatchClaim | None


class BatchInstruction(msgspec.Struct, frozen=True):
    go_on: bool
    closed: bool
    input_url: str
