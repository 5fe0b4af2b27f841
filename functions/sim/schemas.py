"""What the simulation domain takes and gives; plans are those of ``foundry_sim``. Money in nano-USD."""

from enum import StrEnum
from typing import Annotated, Any

from foundry_core.runs import Run, RunError
from foundry_sim.search.plans import (
    BlockedConfiguration,
    CalibrationPoint,
    Confidence,
    HardwareSuggestion,
    LoraSettings,
    Method,
    Mode,
    Nearest,
    ParetoPoint,
    Plan,
    Purchase,
    Quantisation,
    Replay,
    ServiceLevels,
    Workload,
)
from foundry_sim.search.queries import NodeConfiguration, Recommendation
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
PLATFORM_ENGINES = ["vllm", "sglang"]  # those that the platform deploys
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class ModelRef(BaseModel):
    """A model as ``GET /models/{id}`` gives it; other fields of it are ignored."""

    id: Identifier | None = None
    name: Name
    config: dict[str, Any]


class DeviceGroup(BaseModel):
    """A device group as ``GET /clusters/{id}`` gives it; other fields of it are ignored."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=120)]
    device: Annotated[str, StringConstraints(min_length=1, max_length=120)] | None
    nodes: int = Field(ge=0, le=4096)
    devices_per_node: int = Field(ge=1, le=72)
    price_nanos_per_hour: int | None = Field(None, ge=0, le=10**15)
    device_share: float = Field(1.0, gt=0, le=1)


class SimulationCreate(BaseModel):
    """``model``: a registered model, or a name out of ``GET /models/catalogue``."""

    model_config = ConfigDict(extra="forbid")

    model: ModelRef | Name
    device_groups: Annotated[list[DeviceGroup], Field(min_length=1, max_length=64)]
    workload: Workload
    service_levels: ServiceLevels = ServiceLevels()
    engines: Annotated[list[Name], Field(min_length=1, max_length=8)] = PLATFORM_ENGINES
    purchase: Purchase = "on_demand"
    quantisation: Quantisation = "as_shipped"
    mode: Mode = "dedicated"
    method: Method = "regressor"
    confidence: Confidence = "upper"
    replicas: int | None = Field(None, ge=1, le=4096)
    max_model_len: int | None = Field(None, ge=1, le=100_000_000)
    lora: LoraSettings | None = None
    blocked: Annotated[list[BlockedConfiguration], Field(max_length=100)] = []
    max_plans: int = Field(10, ge=1, le=20)
    seed: int = Field(0, ge=0, le=2**31)


class Measured(BaseModel):
    """Means in ms; what was not measured stays null."""

    model_config = ConfigDict(extra="forbid")

    ttft_ms: float | None = Field(None, gt=0, le=1e9)
    tpot_ms: float | None = Field(None, gt=0, le=1e9)


class MeasuredPoint(BaseModel):
    """``request`` is a row of ``foundry sim predict``: model, device, engine, tp, isl, osl, load and so on."""

    model_config = ConfigDict(extra="forbid")

    request: dict[str, Any]
    measured: Measured


class PointsAdd(BaseModel):
    model_config = ConfigDict(extra="forbid")

    points: Annotated[list[MeasuredPoint], Field(min_length=1, max_length=100)]


class CalibrationRevert(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=0)


class CalibrationVersion(BaseModel):
    """A version never changes; going back makes a new one. Version 0 holds no points."""

    version: int
    point_count: int
    reverts_to: int | None = None
    created_by: str = ""
    created_at_ms: int = 0


class Calibration(CalibrationVersion):
    """Own measurements of a project beside what was predicted for them; simulations of the project are tightened by
    the points near each configuration."""

    points: list[CalibrationPoint] = []


class CalibrationVersionPage(BaseModel):
    items: list[CalibrationVersion]
    next_cursor: str | None = None


class PredictionsAsk(BaseModel):
    """Rows of ``foundry sim predict``."""

    model_config = ConfigDict(extra="forbid")

    requests: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=200)]
    method: Method = "regressor"


class PredictionList(BaseModel):
    """One answer per request, in order; ``error`` says why one has none."""

    items: list[dict[str, Any]]
    calibration_version: int


class NodeConfigurationList(BaseModel):
    items: list[NodeConfiguration]


class RecommendationsAsk(BaseModel):
    """Which device group serves each model cheapest, under the lengths and limits of a workload class?"""

    model_config = ConfigDict(extra="forbid")

    models: Annotated[list[Name], Field(min_length=1, max_length=20)]
    device_groups: Annotated[list[DeviceGroup], Field(min_length=1, max_length=64)]
    workload_class: Name = "chat"


class RecommendationList(BaseModel):
    items: list[Recommendation]


class SimulationStatus(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(BaseModel):
    """The answer without its plans. Infeasible is an answer too: ``nearest`` is the closest that can be had, and
    ``binding_constraint`` says what stands in the way."""

    feasible: bool
    headline: str
    binding_constraint: str | None
    explanation: str
    nearest: Nearest | None = None
    hardware: list[HardwareSuggestion] = []
    pareto: list[ParetoPoint] = []
    replay: Replay | None = None
    comparison: list[Plan] = Field([], description="The best of each device group and engine.")
    warnings: list[str] = []
    prices_as_of: str
    considered: int
    feasible_count: int
    elapsed_ms: float


class Simulation(BaseModel):
    id: str
    project_id: str
    status: SimulationStatus
    model_id: str | None = None
    model_name: str
    workload: Workload
    service_levels: ServiceLevels
    purchase: Purchase
    feasible: bool | None = Field(None, description="Null until completed.")
    headline: str | None = None
    plan_count: int = 0
    error: RunError | None = None
    run_id: str | None = None
    created_by: str
    created_at_ms: int
    completed_at_ms: int | None = None
    calibration_version: int = 0
    version: int = 0


class SimulationDetail(Simulation):
    request: SimulationCreate
    outcome: Outcome | None = None


class SimulationPage(BaseModel):
    items: list[Simulation]
    next_cursor: str | None = None


class PlanPage(BaseModel):
    items: list[Plan]
    next_cursor: str | None = None


class RunStarted(BaseModel):
    """The run that carries the work; follow it at ``GET /runs/{id}``."""

    id: str
    kind: str
    status: str
    subject_id: str
    created_at_ms: int

    @classmethod
    def of(cls, run: Run) -> "RunStarted":
        return cls(**run.model_dump(include=set(cls.model_fields)))


class SimulationAccepted(BaseModel):
    simulation: Simulation
    run: RunStarted


class Device(BaseModel):
    """A device that Foundry knows. FLOP/s are dense, by number format; prices are assumptions."""

    name: str
    title: str
    vendor: str
    generation: str
    memory_bytes: int
    memory_bandwidth_bytes_per_s: float
    peak_flops: dict[str, float]
    link_kind: str
    link_bytes_per_s: float
    devices_per_node: int
    power_w: float
    price_nanos_per_hour: dict[str, int]
    source: str


class DevicePage(BaseModel):
    items: list[Device]
    next_cursor: str | None = None
    prices_as_of: str
    prices_note: str
