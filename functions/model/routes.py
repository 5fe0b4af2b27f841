"""Routes of the model registry."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from foundry_core.http import etag, not_modified, require
from foundry_core.permissions import Action
from foundry_core.principal import Principal

from functions.model import service
from functions.model.schemas import CataloguePage, ModelCreate, ModelDetail, ModelPage

router = APIRouter(prefix="/models", tags=["models"])

ModelId = Annotated[str, Path(max_length=64)]
Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=2048)]


@router.get("", dependencies=[require(Action.CATALOGUE_READ)])
def list_models(limit: Limit = 50, cursor: Cursor = None) -> ModelPage:
    """Registered models, oldest first."""
    items, following = service.page_of(limit, cursor)
    return ModelPage(items=items, next_cursor=following)


@router.post("", status_code=201)
def create_model(
    request: ModelCreate, response: Response, principal: Annotated[Principal, require(Action.MODELS_WRITE)]
) -> ModelDetail:
    """Register a model from its ``config.json`` or by the name of a well-known one."""
    model = service.register(request, principal.user_id)
    response.headers["location"] = f"/models/{model.id}"
    return model


@router.get("/catalogue", dependencies=[require(Action.CATALOGUE_READ)])
def list_catalogue() -> CataloguePage:
    """Architectures that ship with Foundry."""
    return CataloguePage(items=list(service.catalogue()))


@router.get("/{model_id}", dependencies=[require(Action.CATALOGUE_READ)], responses={304: {"description": "Unchanged"}})
def get_model(model_id: ModelId, request: Request, response: Response) -> ModelDetail:
    """A model with its config."""
    model = service.get(model_id)
    if not_modified(request, response, etag(f"{model.id}:{model.version}")):
        return Response(status_code=304, headers=dict(response.headers))  # type: ignore[return-value]
    return model


@router.delete("/{model_id}", status_code=204)
def delete_model(model_id: ModelId, principal: Annotated[Principal, require(Action.MODELS_WRITE)]) -> None:
    """Forget a model. What is deployed keeps running: a deployment carries its own copy of the facts."""
    service.delete(model_id, principal.user_id)
