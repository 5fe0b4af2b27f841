"""The wire contract with gateways (docs/gateway.md). Unknown fields are ignored, so that either side may add some."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from functions.app.blocking import Kind as BlockingKind
from functions.app.schemas import Amount, Limits, Price, Provider, TimeMs

Scope = Annotated[str, StringConstraints(pattern=r"^(key|project|endpoint|deployment):[A-Za-z0-9._:/@+-]{1,200}$")]
# Becomes part of an object key or of an item: no slash, no leading dot.
Part = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Kind = Literal["requests", "tokens", "money_nanos", "wake"]


def credential_ref(project_id: str, credential: str | None) -> str | None:
    """A credential belongs to the project: its reference begins with the project's id, so that nobody can have the key
    of another project sent to an address of their own."""
    return f"{project_id}.{credential}" if credential else None


class KeyEntry(BaseModel):
    id: str
    sha256: str
    project_id: str
    expires_at_ms: int | None
    models: list[str] | None
    cidrs: list[str] | None
    limits: Limits
    coalesce_ms: int | None


class ProjectEntry(BaseModel):
    id: str
    limits: Limits
    capture_bodies: bool


class BackendEntry(BaseModel):
    id: str
    url: str
    model: str
    source: Literal["live", "twin", "verification"]
    provider: Provider
    credential_ref: str | None
    weight: float = 1.0
    asleep: bool
    shadow: bool = False
    endpoint: str = Field("", description="Whose it is, where another endpoint shares its requests with it.")


class GuardrailEntry(BaseModel):
    id: str
    kind: str
    on: list[str]
    action: str
    patterns: list[str]
    url: str
    credential_ref: str | None
    timeout_ms: int
    fail_open: bool
    window_chars: int


class PolicyEntry(BaseModel):
    routing: str
    retries: int
    cache_ttl_s: int
    coalesce_ms: int
    fallbacks: list[str]
    hold_s: int
    hold_queue: int
    guardrails: list[GuardrailEntry]


class EndpointEntry(BaseModel):
    name: str
    project_ids: list[str]
    tiers: list[list[BackendEntry]]
    price: Price
    limits: Limits
    max_output_tokens: int | None
    adapters: dict[str, str]
    policy: PolicyEntry
    problem: str = Field(description="Why it answers nothing until it is corrected; empty: it does.")


class BlockingEntry(BaseModel):
    id: str
    kind: BlockingKind
    value: str


class CredentialEntry(BaseModel):
    ref: str
    sealed: str = Field(
        description="Only the gateway whose token asked for the config opens it. Empty: it cannot be had just now, and "
        "the gateway keeps the one that it has."
    )


class ConfigDocument(BaseModel):
    """The config snapshot."""

    version: int
    keys: list[KeyEntry]
    projects: list[ProjectEntry]
    endpoints: list[EndpointEntry]
    blocking: list[BlockingEntry] = []
    credentials: list[CredentialEntry] = []


class LeaseRequest(BaseModel):
    scope: Scope
    kind: Kind
    lease_id: Part
    seq: TimeMs = Field(description="Grows with each message about the lease.")
    spent: Amount = 0
    held: Amount = 0
    ceiling: Amount = 0
    needed: Amount = 0
    window_ms: TimeMs | None = None
    close: bool = False


class LeaseBatch(BaseModel):
    """As many messages as are surely read, changed and written one after the other while a gateway waits (5 s)."""

    gateway_id: Part
    requests: Annotated[list[LeaseRequest], Field(max_length=100)]


class Lease(BaseModel):
    scope: str
    kind: Kind
    lease_id: str
    granted: int
    expires_at_ms: int
    retry_after_ms: int | None = None


class LeaseAnswer(BaseModel):
    leases: list[Lease]


class UploadRequest(BaseModel):
    gateway_id: Part
    batch_id: Part
    rows: Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
    bytes: Annotated[int, Field(ge=1, le=16 * 1024 * 1024, strict=True)]
    captured: Part | None = Field(default=None, description="The project whose bodies these are; else metering rows.")


class Upload(BaseModel):
    url: str
    headers: dict[str, str]
