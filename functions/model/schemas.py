"""What the model registry takes and gives. Sizes in bytes, times in UTC milliseconds."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]

Repository = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._][A-Za-z0-9._/:@+-]{0,199}$")]


class ModelCreate(BaseModel):
    """Exactly one of ``config`` (the content of a Hugging Face ``config.json``) and ``source`` (a name out of
    ``GET /models/catalogue``)."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    description: Annotated[str, StringConstraints(max_length=500)] = ""
    config: dict[str, Any] | None = None
    source: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    repository: Repository | None = Field(
        None, description="Where engines load the weights from, such as a Hugging Face repository; `source` by default."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelCreate":
        if (self.config is None) == (self.source is None):
            raise ValueError("give either config or source")
        return self


class Architecture(BaseModel):
    """Size facts of a model; flat fields describe the first layer of their kind."""

    model_type: str
    task: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_position: int
    tied_embeddings: bool
    attention_layers: dict[str, int] = Field(description="Number of layers by kind of token mixing.")
    moe_layers: int
    experts: int
    experts_per_token: int
    checkpoint_precision: str


class Facts(BaseModel):
    architecture: Architecture
    parameters: int
    active_parameters: int = Field(description="Parameters that one token touches.")
    weight_bytes: dict[str, int] = Field(description="All weights on one device, by precision.")
    kv_bytes_per_token: dict[str, int] = Field(description="KV cache of one token over all layers, by precision.")


class CatalogueEntry(Facts):
    """An architecture that ships with Foundry; its name is a ``source`` of ``POST /models``."""

    name: str


class CataloguePage(BaseModel):
    items: list[CatalogueEntry]
    next_cursor: str | None = None


class Model(Facts):
    """A registered model."""

    id: str
    name: str
    description: str = ""
    source: str | None = None
    repository: str | None = None
    created_by: str
    created_at_ms: int
    version: int = 0


class ModelDetail(Model):
    config: dict[str, Any]


class ModelPage(BaseModel):
    items: list[Model]
    next_cursor: str | None = None
