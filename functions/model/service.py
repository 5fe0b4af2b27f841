"""The rules of the registry: what a config must be, what a name means, and the facts that are kept."""

from functools import cache
from typing import Any

import foundry_sim.facts.architecture as sim
from foundry_core.clock import now_ms
from foundry_core.errors import Invalid
from foundry_core.events import new_event
from foundry_core.ids import new_id
from foundry_core.sizes import check_storable
from foundry_sim.facts.architectures.catalogue import config_of

from functions.model import store
from functions.model.facts import facts_of
from functions.model.schemas import CatalogueEntry, Model, ModelCreate, ModelDetail

MAX_CONFIG_BYTES = 256 * 1024  # an item holds 400 KB

page_of = store.page_of


def register(request: ModelCreate, user_id: str) -> ModelDetail:
    """Raises ``Invalid`` (``config_invalid``, ``model_not_found``), ``TooLarge``, ``Conflict`` (``name_taken``)."""
    config = _bundled_config(request.source) if request.source is not None else request.config or {}
    check_storable(config, what="config", max_bytes=MAX_CONFIG_BYTES)
    facts = facts_of(_understood(config, request.source or request.name))
    model = Model(
        **facts.model_dump(), id=new_id("mdl"), name=request.name, description=request.description,
        source=request.source, repository=request.repository or request.source,
        created_by=user_id, created_at_ms=now_ms(),
    )  # fmt: skip
    data = {"model_id": model.id, "name": model.name, "parameters": model.parameters, "created_by": user_id}
    event = new_event("foundry.model.registered.v1", source="model", subject=model.id, data=data)
    return ModelDetail(**store.insert(model, config, event).model_dump(), config=config)


def get(model_id: str) -> ModelDetail:
    return ModelDetail(**store.load(model_id).model_dump(), config=store.load_config(model_id))


def delete(model_id: str, user_id: str) -> None:
    """Deployments carry their own copy of the facts, so that a deletion never touches what is running."""
    data = {"model_id": model_id, "deleted_by": user_id}
    store.delete(model_id, new_event("foundry.model.deleted.v1", source="model", subject=model_id, data=data))


@cache
def catalogue() -> tuple[CatalogueEntry, ...]:
    return tuple(CatalogueEntry(name=name, **facts_of(sim.resolve(name)).model_dump()) for name in sim.names())


def _bundled_config(source: str) -> dict[str, Any]:
    try:
        return config_of(source)
    except sim.ArchitectureError as error:
        detail = f"{source!r} is not a model that Foundry ships with."
        known = "GET /models/catalogue lists them; any other: foundry models add NAME --config FILE, its config.json."
        raise Invalid(detail, code="model_not_found", next_action=known) from error


def _understood(config: dict[str, Any], name: str) -> sim.Architecture:
    try:
        return sim.from_config(config, name)
    except sim.ArchitectureError as error:
        raise _config_invalid(str(error)) from error


def _config_invalid(detail: str) -> Invalid:
    return Invalid(
        detail, code="config_invalid", next_action="Send the config.json of the model's repository unchanged.",
        errors=[{"field": "config", "detail": detail}],
    )  # fmt: skip
