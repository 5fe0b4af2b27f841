"""Questions and answers of a simulation, as the REST API and the CLI carry them. Money is integer nano-USD."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from foundry_sim.facts.workloads import workload_class

Purchase = Literal["on_demand", "spot", "owned"]
Statistic = Literal["mean", "p50", "p95", "p99"]
Quantisation = Literal["as_shipped", "allowed"]
Mode = Literal["dedicated", "shared"]
Method = Literal["regressor", "heuristic"]
Confidence = Literal["upper", "expected"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DeviceGroup(_Strict):
    """Equal nodes of one device type. ``price_nanos_per_hour`` (per device) replaces the bundled price assumption."""

    name: str = Field(min_length=1, max_length=120)
    device: str = Field(min_length=1, max_length=120)
    nodes: int = Field(1, ge=1, le=4096)
    devices_per_node: int = Field(8, ge=1, le=72)
    price_nanos_per_hour: int | None = Field(None, ge=0, le=10**15)
    device_share: float = Field(1.0, gt=0, le=1, description="fraction of each device that is free (shared mode)")

    @property
    def devices(self) -> int:
        return self.nodes * self.devices_per_node


class Workload(_Strict):
    """Mean lengths in tokens and either a concurrency (closed loop) or a rate (open loop, requests per second)."""

    input_tokens: int = Field(ge=1, le=10_000_000)
    output_tokens: int = Field(ge=0, le=1_000_000)
    concurrency: int | None = Field(None, ge=1, le=1_000_000)
    rate_per_s: float | None = Field(None, gt=0, le=1_000_000)

    @model_validator(mode="after")
    def _one_load(self) -> Self:
        if (self.concurrency is None) == (self.rate_per_s is None):
            raise ValueError("give either concurrency or rate_per_s")
        return self


class ServiceLevels(_Strict):
    """Limits that the named statistic of each metric must keep; tokens_per_second is per user while decoding."""

    ttft_ms: float | None = Field(None, gt=0, le=1e9)
    tokens_per_second: float | None = Field(None, gt=0, le=1e6)
    e2e_ms: float | None = Field(None, gt=0, le=1e9)
    statistic: Statistic = "mean"


class BlockedConfiguration(_Strict):
    """A configuration that failed before and is not to be proposed; empty fields match everything."""

    engine: str | None = Field(None, max_length=120)
    device: str | None = Field(None, max_length=120)
    weights: str | None = Field(None, max_length=120)
    tp: int | None = Field(None, ge=1, le=512)
    pp: int | None = Field(None, ge=1, le=512)
    ep: int | None = Field(None, ge=1, le=512)
    reason: str = Field("", max_length=500)


class CalibrationPoint(_Strict):
    """A measurement beside what was predicted for it (means, ms); ``row`` is a request of ``foundry sim predict``."""

    row: dict[str, Any]
    ttft_ms: float | None = Field(None, gt=0, le=1e9)
    tpot_ms: float | None = Field(None, gt=0, le=1e9)
    predicted_ttft_ms: float = Field(gt=0)
    predicted_tpot_ms: float = Field(ge=0)


class LoraSettings(_Strict):
    adapters: int = Field(ge=1, le=10_000)
    rank: int = Field(16, ge=1, le=512)


class SimulationRequest(_Strict):
    """What should be served, on what, for whom. ``model`` is a bundled name or a config.json object."""

    model: str | dict[str, Any]
    device_groups: list[DeviceGroup] = Field(min_length=1, max_length=64)
    workload: Workload
    service_levels: ServiceLevels = ServiceLevels()
    engines: list[str] = Field(default=["vllm", "sglang", "trtllm"], min_length=1, max_length=8)
    purchase: Purchase = "on_demand"
    quantisation: Quantisation = "as_shipped"
    mode: Mode = "dedicated"
    method: Method = "regressor"
    confidence: Confidence = "upper"
    replicas: int | None = Field(None, ge=1, le=4096, description="exactly this many; default: as few as needed")
    max_model_len: int | None = Field(None, ge=1, le=100_000_000)
    lora: LoraSettings | None = None
    blocked: list[BlockedConfiguration] = Field(default=[], max_length=1000)
    calibration: list[CalibrationPoint] = Field(default=[], max_length=1000, description="own measurements, to tighten")
    mixed: bool = Field(False, description="also look for fleets: several groups, prefill and decode apart")
    max_plans: int = Field(10, ge=1, le=200)
    seed: int = Field(0, ge=0)

    @classmethod
    def for_class(cls, name: str, **fields: Any) -> "SimulationRequest":
        """A request with a workload class's lengths, load and p95 service levels."""
        kind = workload_class(name)
        workload = Workload(
            input_tokens=kind.input_tokens, output_tokens=kind.output_tokens, concurrency=kind.concurrency
        )
        levels = ServiceLevels(
            ttft_ms=kind.ttft_ms, tokens_per_second=kind.tokens_per_second, e2e_ms=kind.e2e_ms, statistic="p95"
        )
        return cls(**{"workload": workload, "service_levels": levels, **fields})


class Spread(_Strict):
    """Milliseconds. ``lo``–``hi`` bound the mean with 90 % probability."""

    mean: float
    p50: float
    p95: float
    p99: float
    lo: float
    hi: float


class PlanPrecision(_Strict):
    weights: str
    activations: str
    kv: str
    moe: str
    attention: str
    label: str
    quality_note: str


class PlanLimits(_Strict):
    max_model_len: int
    max_num_seqs: int
    chunk_tokens: int
    memory_utilization: float


class PlanMemory(_Strict):
    """Bytes per device of the tightest pipeline stage."""

    memory_bytes: int
    usable_bytes: int
    weight_bytes: int
    lora_bytes: int
    activation_bytes: int
    reserve_bytes: int
    free_kv_bytes: int
    kv_bytes_per_token: int
    kv_blocks: int


class Predicted(_Strict):
    """Expected at the requested load. Throughput counts output tokens of all replicas."""

    ttft_ms: Spread
    tpot_ms: Spread
    e2e_ms: Spread
    output_tokens_per_s: float
    input_tokens_per_s: float
    requests_per_s: float
    tokens_per_s_per_user: float
    tokens_per_s_per_device: float
    max_concurrency: int


class Plan(_Strict):
    """A configuration × replicas on a device group. ``devices`` counts all replicas; ``id`` names the configuration."""

    id: str
    model: str
    device_group: str
    device: str
    engine: str
    precision: PlanPrecision
    tp: int
    pp: int
    ep: int
    dp: int
    replicas: int
    devices: int
    limits: PlanLimits
    predicted: Predicted
    memory: PlanMemory
    price_nanos_per_device_hour: int
    cost_nanos_per_hour: int
    cost_nanos_per_million_output_tokens: int | None
    meets_service_levels: bool
    missed: list[str]
    method: Method
    in_domain: bool
    device_share: float = 1.0
    launch_command: str


class ParetoPoint(_Strict):
    """A configuration that no other beats in both speed per user and throughput per device."""

    plan_id: str
    tokens_per_s_per_user: float
    tokens_per_s_per_device: float
    device_group: str
    engine: str
    feasible: bool


class Nearest(_Strict):
    """The closest that this hardware comes: service levels that would be met, by which plan, at what cost."""

    service_levels: ServiceLevels
    plan: Plan


class HardwareSuggestion(_Strict):
    """Hardware outside the request that would meet it."""

    device: str
    nodes: int
    devices_per_node: int
    plan: Plan


class FleetPart(_Strict):
    """One device group's share of a fleet: ``load`` is its users, or its requests per second. With prefill and decode
    apart, both parts see the whole load and their plans show the times of the whole path."""

    plan: Plan
    load: float
    role: Literal["serve", "prefill", "decode"] = "serve"


class Fleet(_Strict):
    """Plans that carry the load together behind one endpoint: on several groups, or prefill and decode apart."""

    parts: list[FleetPart]
    devices: int
    cost_nanos_per_hour: int
    output_tokens_per_s: float


class Gaps(_Strict):
    """Milliseconds between two tokens of a request."""

    mean: float
    p50: float
    p95: float
    p99: float


class Replay(_Strict):
    """The best plan's load served event by event: goodput counts the requests that keep every service level themselves,
    whatever statistic was asked for; the share is of all requests. Means are the plan's, the scatter is the events'."""

    requests: int
    goodput_share: float
    goodput_requests_per_s: float
    itl_ms: Gaps
    preemptions: int


class SimulationResult(_Strict):
    """``plans`` holds the cheapest first, all meeting the service levels; empty when ``feasible`` is false."""

    feasible: bool
    headline: str
    model: str
    plans: list[Plan]
    comparison: list[Plan]
    pareto: list[ParetoPoint]
    binding_constraint: str | None
    explanation: str
    nearest: Nearest | None = None
    hardware: list[HardwareSuggestion] = []
    fleets: list[Fleet] = []
    replay: Replay | None = None
    warnings: list[str] = []
    purchase: Purchase
    prices_as_of: str
    considered: int
    feasible_count: int
    elapsed_ms: float
    seed: int
