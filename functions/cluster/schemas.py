"""What the cluster domain takes and gives. Sizes in bytes, money in nano-USD, times in UTC milliseconds."""

from enum import StrEnum
from typing import Annotated, Any

from foundry_core.runs import Run, RunError
from foundry_sim.search.plans import Plan
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Description = Annotated[str, StringConstraints(max_length=500)]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Amount = Annotated[int, Field(ge=0, le=10**15)]
LabelValue = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
Repository = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._][A-Za-z0-9._/:@+-]{0,199}$")]
Kubeconfig = Annotated[str, StringConstraints(min_length=1, max_length=200_000)]


class ClusterKind(StrEnum):
    EKS = "eks"
    AKS = "aks"
    ONPREM = "onprem"


class ClusterStatus(StrEnum):
    REGISTERING = "registering"
    READY = "ready"
    FAILED = "failed"


class DeploymentStatus(StrEnum):
    PENDING = "pending"
    DEPLOYING = "deploying"
    READY = "ready"
    SLEEPING = "sleeping"
    ASLEEP = "asleep"
    WAKING = "waking"
    FAILED = "failed"
    DELETING = "deleting"


class Request(BaseModel):
    """A body from a client: a field that we do not know is a mistake, not a wish to be ignored."""

    model_config = ConfigDict(extra="forbid")


class ClusterCreate(Request):
    name: Name
    kind: ClusterKind
    kubeconfig: Kubeconfig = Field(description="YAML; kept encrypted, never shown.")
    description: Description = ""


class ClusterChange(Request):
    """Fields that are given are replaced; a new kubeconfig is tried first, then the cluster is registered again."""

    name: Name | None = None
    description: Description | None = None
    kubeconfig: Kubeconfig | None = None
    prices_nanos_per_hour: dict[Identifier, Amount | None] | None = Field(
        None, description="Price of one device and hour by device group; null returns to the bundled assumption."
    )


class DeviceGroup(BaseModel):
    """Alike nodes. ``device`` is null when Foundry does not know the product: such a group cannot be planned for."""

    name: str
    device: str | None
    product: str
    nodes: int = Field(description="Nodes that are ready and schedulable.")
    devices_per_node: int
    price_nanos_per_hour: int | None = Field(
        None, description="Per device, as its owner set it; null: the bundled price assumption."
    )
    gpu_resource: str
    node_selector: dict[str, str]
    tolerations: list[dict[str, str]] = []

    @property
    def devices(self) -> int:
        return self.nodes * self.devices_per_node


class Node(BaseModel):
    name: str
    group: str | None = Field(None, description="Device group; null for a node without GPUs.")
    device: str | None = None
    product: str = ""
    gpu_count: int = 0
    gpu_resource: str = ""
    nvidia: bool = Field(False, description="Something says that NVIDIA GPUs are built in, offered to pods or not.")
    ready: bool
    schedulable: bool
    instance_type: str = ""
    zone: str = ""
    cpu_millis: int = 0
    memory_bytes: int = 0
    node_selector: dict[str, str] = {}
    taints: list[dict[str, str]] = []

    @property
    def usable(self) -> bool:
        return self.ready and self.schedulable


class Cluster(BaseModel):
    id: str
    name: str
    kind: ClusterKind
    description: str = ""
    status: ClusterStatus
    server: str = Field(description="Address of the Kubernetes API.")
    kubernetes_version: str = ""
    device_groups: list[DeviceGroup] = []
    node_count: int = 0
    gpu_count: int = 0
    gpus_reserved: int = 0
    error: RunError | None = None
    run_id: str | None = None
    created_by: str
    created_at_ms: int
    version: int = 0


class ClusterPage(BaseModel):
    items: list[Cluster]
    next_cursor: str | None = None


class NodePage(BaseModel):
    items: list[Node]
    next_cursor: str | None = None


class ModelFacts(BaseModel):
    """A model as ``GET /models/{id}`` gives it; other fields of it are ignored."""

    id: LabelValue
    name: Name
    config: dict[str, Any]
    repository: Repository | None = Field(None, description="Where the engine loads the weights from.")


class DeploymentCreate(Request):
    """``plan`` exactly as a simulation returned it. What can be recomputed of it is: only the choice is taken over."""

    name: Name = Field(description="Also the name of the endpoint that clients call.")
    cluster_id: Identifier
    model: ModelFacts
    plan: Plan
    simulation_id: Identifier | None = None
    description: Description = ""


class DeploymentChange(Request):
    description: Description


class Price(BaseModel):
    """What the metering charges: the cost of the plan at its predicted throughput."""

    input_nanos_per_token: int
    output_nanos_per_token: int


class Deployment(BaseModel):
    id: str
    project_id: str
    name: str
    description: str = ""
    status: DeploymentStatus
    cluster_id: str
    device_group: str
    model_id: str
    model_name: str
    simulation_id: str | None = None
    engine: str
    replicas: int
    devices: int
    cost_nanos_per_hour: int
    price: Price
    endpoint_id: str | None = None
    error: RunError | None = None
    run_id: str | None = None
    created_by: str
    created_at_ms: int
    ready_at_ms: int | None = None
    version: int = 0


class DeploymentDetail(Deployment):
    plan: Plan


class DeploymentPage(BaseModel):
    items: list[Deployment]
    next_cursor: str | None = None


class Spec(BaseModel):
    """What a deployment is made from."""

    model: ModelFacts
    plan: Plan
    command: list[str]


class WakeWanted(BaseModel):
    """A gateway holds requests for a deployment that sleeps."""

    project_id: str
    deployment_id: str


class Idle(BaseModel):
    """It had no request for as long as its owner said; ``as_of_ms``: when that was asked."""

    project_id: str
    deployment_id: str
    as_of_ms: int


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


class ClusterAccepted(BaseModel):
    cluster: Cluster
    run: RunStarted


class DeploymentAccepted(BaseModel):
    deployment: Deployment
    run: RunStarted


class RunAccepted(BaseModel):
    run: RunStarted
