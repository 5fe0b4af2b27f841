"""What the app domain takes and gives. Money in nano-USD, times in UTC milliseconds."""

from ipaddress import ip_network
from typing import Annotated, Generic, Literal, TypeVar

from foundry_core.permissions import Level
from foundry_core.principal import Role
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from functions.app.fields import Adapters, Name, OutsideUrl, ServedName
from functions.app.policy import CoalesceMs, Policy, PolicySet, StoredPolicy

T = TypeVar("T")
Text = Annotated[str, StringConstraints(max_length=500)]
Amount = Annotated[int, Field(ge=0, le=10**18, strict=True)]
TimeMs = Annotated[int, Field(ge=0, lt=2**53, strict=True)]


def _cidr(value: str) -> str:
    ip_network(value, strict=False)
    return value


Cidr = Annotated[str, StringConstraints(max_length=64), AfterValidator(_cidr)]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s\"\\]{1,64}@[^@\s\"\\]{1,189}$", to_lower=True)]


class Request(BaseModel):
    """A body from a client: a field that we do not know is a mistake, not a wish to be ignored."""

    model_config = ConfigDict(extra="forbid")


class Page(BaseModel, Generic[T]):
    items: list[T]
    next_cursor: str | None = None


class Limits(Request):
    """What may be used at most; null is no limit. ``budget_nanos`` is a total: raise it to allow more."""

    requests_per_minute: Amount | None = None
    tokens_per_minute: Amount | None = None
    budget_nanos: Amount | None = None


class Membership(BaseModel):
    project_id: str
    level: Level


class Me(BaseModel):
    id: str
    username: str
    roles: list[Role]
    memberships: list[Membership]


class UserCreate(Request):
    email: Email
    roles: Annotated[set[Role], Field(max_length=len(Role))] = set()


class UserChange(Request):
    roles: Annotated[set[Role], Field(max_length=len(Role))] | None = None
    enabled: bool | None = None


class User(BaseModel):
    id: str
    email: str
    roles: list[Role]
    enabled: bool
    status: str = Field(description="Cognito's word, such as CONFIRMED or FORCE_CHANGE_PASSWORD.")
    created_at_ms: int


class ProjectCreate(Request):
    name: Name
    description: Text = ""
    limits: Limits = Limits()
    capture_bodies: bool = False


class ProjectChange(Request):
    """Fields that are given are replaced; within ``limits`` too, null lifts a limit."""

    name: Name | None = None
    description: Text | None = None
    limits: Limits | None = None
    capture_bodies: bool | None = None


class Project(BaseModel):
    id: str
    name: str
    description: str = ""
    limits: Limits = Limits()
    capture_bodies: bool = Field(default=False, description="Gateways keep what is asked and answered.")
    created_by: str
    created_at_ms: int


class MemberPut(Request):
    level: Level


class Member(BaseModel):
    user_id: str
    username: str
    level: Level
    added_at_ms: int


class KeyCreate(Request):
    """``models``: names of the endpoints that the key may call, null for all; ``cidrs``: where from, null for
    anywhere."""

    name: Name
    expires_at_ms: TimeMs | None = None
    models: Annotated[list[ServedName], Field(max_length=100)] | None = None
    cidrs: Annotated[list[Cidr], Field(max_length=100)] | None = None
    limits: Limits = Limits()
    coalesce_ms: CoalesceMs | None = Field(None, description="In place of the endpoints'; null: theirs.")


class KeyChange(Request):
    """Fields that are given are replaced, null lifts a restriction."""

    name: Name | None = None
    expires_at_ms: TimeMs | None = None
    models: Annotated[list[ServedName], Field(max_length=100)] | None = None
    cidrs: Annotated[list[Cidr], Field(max_length=100)] | None = None
    limits: Limits | None = None
    coalesce_ms: CoalesceMs | None = None


class Key(BaseModel):
    id: str
    project_id: str
    name: str
    hint: str = Field(description="The last four characters of the secret.")
    expires_at_ms: int | None = None
    models: list[str] | None = None
    cidrs: list[str] | None = None
    limits: Limits = Limits()
    coalesce_ms: int | None = None
    created_by: str
    created_at_ms: int


class NewKey(Key):
    secret: str = Field(description="Shown in this answer only; we keep its SHA-256.")


class Price(BaseModel):
    input_nanos_per_token: Amount = 0
    output_nanos_per_token: Amount = 0
    cached_nanos_per_token: Amount | None = None


# 100 dollars a token, far beyond what anybody asks: times the most output tokens of an endpoint (10**7) it is the
# largest Amount, so what those cost stays below 2**63.
AskedPrice = Annotated[int, Field(ge=0, le=10**11, strict=True)]


class PriceSet(Request):
    """What an owner asks for a token."""

    input_nanos_per_token: AskedPrice = 0
    output_nanos_per_token: AskedPrice = 0
    cached_nanos_per_token: AskedPrice | None = None


Provider = Literal["openai", "anthropic", "azure", "bedrock", "gemini", "mistral", "together"]


class Endpoint(BaseModel):
    """A name that clients call. Where its deployments listen is not for clients to know."""

    id: str
    name: str
    project_id: str
    deployment_ids: list[str]
    model_id: str | None
    provider: Provider | None = Field(None, description="Who answers; null: deployments of ours.")
    price: Price
    limits: Limits = Limits()
    policy: Policy = Policy()
    adapters: dict[str, str] = {}
    created_at_ms: int


class EndpointCreate(Request):
    """An endpoint that an external provider answers. ``openai`` is any server that speaks OpenAI's API."""

    name: Name
    provider: Provider
    url: OutsideUrl
    model: ServedName = Field(description="As the provider calls it.")
    credential: Name | None = Field(None, description="A credential of the project, stored or mounted at gateways.")
    price: PriceSet = PriceSet()
    limits: Limits = Limits()
    policy: PolicySet = PolicySet()
    adapters: Adapters = {}
    max_output_tokens: Annotated[int, Field(ge=1, le=10**7, strict=True)] | None = None


# What HTTP headers can carry, and gateways refuse the rest. At least as long as what could be a secret at all.
Secret = Annotated[str, StringConstraints(strip_whitespace=True, min_length=8, max_length=4096, pattern=r"^[ -~]+$")]


class CredentialPut(Request):
    secret: Secret = Field(description="The provider's API key, or for Bedrock a JSON object. It is never shown again.")


class Credential(BaseModel):
    """That the project has a credential for a provider; which one is nobody's to see."""

    project_id: str
    name: str
    changed_by: str
    changed_at_ms: int


class EndpointChange(Request):
    """Fields that are given are replaced, within ``limits`` and ``policy`` too. A null lifts a limit; a ``policy`` of
    null is the usual one; ``adapters`` of null are none."""

    limits: Limits | None = None
    policy: PolicySet | None = None
    adapters: Adapters | None = None

    @property
    def uses_credential(self) -> bool:
        return self.policy is not None and any(guardrail.credential for guardrail in self.policy.guardrails)


class Backend(BaseModel):
    """One place that answers for an endpoint; several of the same deployment share its id as a prefix."""

    id: str
    deployment_id: str
    url: str
    model: str
    source: Literal["live", "twin", "verification"] = "live"
    provider: Provider = "openai"
    credential_ref: str | None = None
    asleep: bool = False


class PublishedEndpoint(Endpoint):
    """An endpoint as stored, with what gateways need."""

    policy: StoredPolicy = Policy()
    backends: list[Backend]
    max_output_tokens: int | None = None

    def public(self) -> Endpoint:
        return Endpoint.model_validate(self.model_dump(include=set(Endpoint.model_fields)))


class GatewayCreate(Request):
    name: Name


class Gateway(BaseModel):
    id: str
    name: str
    created_by: str
    created_at_ms: int


class NewGateway(Gateway):
    token: str = Field(description="Shown in this answer only; we keep its SHA-256.")
