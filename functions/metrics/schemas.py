"""What the metrics domain takes and gives. Times in milliseconds, money in nano-USD, throughput in output tokens."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Source = Literal["live", "twin", "verification"]
GroupBy = Literal["endpoint", "key", "model", "hour"]

_Id = Annotated[str, StringConstraints(min_length=1, max_length=128)]
_Text = Annotated[str, StringConstraints(max_length=256)]
_Count = Annotated[int, Field(ge=0, le=10**12)]
_Nanos = Annotated[int, Field(ge=0, le=10**18)]
_Ms = Annotated[float, Field(ge=0, le=10**10, allow_inf_nan=False)]


class Row(BaseModel):
    """One request as a gateway metered it (docs/gateway.md, metering row)."""

    model_config = ConfigDict(strict=True, extra="ignore")

    event_id: _Id
    ts_ms: int
    gateway_id: _Text
    project_id: _Text = ""
    key_id: _Text = ""
    endpoint: _Text = ""
    deployment_id: _Text = ""
    model: _Text = ""
    provider: _Text = ""
    route: _Text = ""
    stream: bool = False
    status: Annotated[int, Field(ge=0, le=999)] = 0
    outcome: Literal["ok", "cancelled", "cut", "failed", "rejected", "cached", "shadow"] = "ok"
    error_code: _Text = ""
    input_tokens: _Count = 0
    output_tokens: _Count = 0
    cached_tokens: _Count = 0
    usage_source: Literal["upstream", "counted", "none"] = "none"
    ttft_ms: _Ms | None = None
    tpot_ms: _Ms | None = None
    e2e_ms: _Ms | None = None
    queue_ms: _Ms | None = None
    cost_nanos: _Nanos = 0
    retries: Annotated[int, Field(ge=0, le=1000)] = 0
    wasted_tokens: _Count = 0
    source: Source = "live"
    request_id: _Text = ""


class Distribution(BaseModel):
    samples: int
    mean: float
    p50: float
    p95: float
    p99: float


class Usage(BaseModel):
    """``failed`` counts what did not end as ok, cached or cancelled by the client."""

    requests: int
    failed: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    wasted_tokens: int
    cost_nanos: int
    ttft_ms: Distribution | None
    tpot_ms: Distribution | None


class UsageGroup(Usage):
    group: str = Field(description="The endpoint, key id or model; for hours the start in UTC milliseconds.")


class UsagePage(BaseModel):
    """Whole hours: those that begin within ``[from_ms, to_ms)``, rounded down to the hour."""

    from_ms: int
    to_ms: int
    group_by: GroupBy
    total: Usage
    items: list[UsageGroup]
    next_cursor: str | None = None


class Spread(BaseModel):
    """Milliseconds; ``lo``–``hi`` bound the mean with 90 % probability."""

    mean: float
    p50: float
    p95: float
    p99: float
    lo: float
    hi: float


class Predicted(BaseModel):
    ttft_ms: Spread
    tpot_ms: Spread
    output_tokens_per_s: float


class PlanFacts(BaseModel):
    """What is kept of the plan that a deployment was made from."""

    id: str
    predicted: Predicted
    cost_nanos_per_hour: int
    cost_nanos_per_million_output_tokens: int | None = None
    method: str = ""
    in_domain: bool = False


class DeploymentReady(BaseModel):
    """Data of ``foundry.deployment.ready.v1``, as far as it is used here."""

    project_id: str
    deployment_id: str
    cluster_id: str
    model_id: str
    endpoint_name: str
    plan: PlanFacts


class DeploymentVerified(BaseModel):
    """Data of ``foundry.deployment.verified.v1``: what one real request measured before the endpoint was opened."""

    project_id: str
    deployment_id: str
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    output_tokens: int = 0


class IdleAsked(BaseModel):
    """Data of ``foundry.deployment.idle_asked.v1``: may this deployment sleep, which was awake at ``as_of_ms``?"""

    project_id: str
    deployment_id: str
    sleep_after_s: int
    as_of_ms: int


class Interval(BaseModel):
    lo: float
    hi: float


class Comparison(BaseModel):
    """``error_percent`` is (predicted − measured) / measured; the interval bounds the predicted mean (90 %)."""

    metric: Literal["ttft_ms", "tpot_ms", "output_tokens_per_s", "cost_nanos_per_million_output_tokens"]
    statistic: Literal["mean", "p50", "p95", "p99"]
    predicted: float
    interval: Interval | None
    measured: float | None
    error_percent: float | None
    within_interval: bool | None
    samples: int


class SourceAccuracy(BaseModel):
    """Measurements of one source. ``concurrency`` is the mean number of requests in flight while any was."""

    source: Source
    samples: int
    from_ms: int | None
    to_ms: int | None
    concurrency: float | None
    note: str | None
    comparisons: list[Comparison]


class Accuracy(BaseModel):
    project_id: str
    deployment_id: str
    cluster_id: str
    model_id: str
    endpoint_name: str
    plan_id: str
    method: str
    in_domain: bool
    predicted_at: str
    items: list[SourceAccuracy]


class Measured(BaseModel):
    """What the warehouse knows of a deployment's requests from one source."""

    source: Source
    samples: int
    from_ms: int | None = None
    to_ms: int | None = None
    ttft_ms: Distribution | None = None
    tpot_ms: Distribution | None = None
    output_tokens: int = 0
    busy_ms: float = 0.0
    in_flight_ms: float = 0.0
