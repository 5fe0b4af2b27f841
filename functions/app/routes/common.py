"""What the routes share: path parameters, paging, ETags."""

from typing import Annotated, Any, TypeVar

from fastapi import Path, Query, Request, Response
from foundry_core.http import etag, not_modified
from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)
Id = Annotated[str, Path(min_length=1, max_length=128)]
Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=4096)]
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "Unchanged"}}


def tag_of(model: BaseModel) -> str:
    return etag(model.model_dump_json())


def tagged(request: Request, response: Response, model: M, tag: str = "") -> M:
    """The model with its ETag, or 304 when the client has it."""
    if not_modified(request, response, tag or tag_of(model)):
        return Response(status_code=304, headers={"etag": response.headers["etag"]})  # type: ignore[return-value]
    return model
