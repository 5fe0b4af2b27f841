"""The FastAPI application of a domain and the Lambda handler around it."""

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from foundry_core import principal as principals
from foundry_core.errors import (
    PROBLEM_JSON,
    Conflict,
    Forbidden,
    FoundryError,
    Invalid,
    NotFound,
    PreconditionFailed,
    Problem,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from foundry_core.logs import logger
from foundry_core.membership import check_access
from foundry_core.permissions import Action, check
from foundry_core.principal import Principal

MAX_BODY_BYTES = 1_000_000
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    error.status: {
        "description": error.title,
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for error in (
        Unauthenticated,
        Forbidden,
        NotFound,
        Conflict,
        PreconditionFailed,
        TooLarge,
        Invalid,
        Unavailable,
    )
}


def create_app(domain: str, *routers: APIRouter) -> FastAPI:
    """The domain's application: its routers, problem documents for every error, a body limit."""
    app = FastAPI(
        title=f"Foundry {domain}", version="1", docs_url=None, redoc_url=None, openapi_url=None,
        generate_unique_id_function=lambda route: f"{domain}_{route.name}", responses=_PROBLEMS,
        redirect_slashes=False,
    )  # fmt: skip
    app.add_exception_handler(FoundryError, _foundry_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    for router in routers:
        app.include_router(router, dependencies=[Depends(_limit_body)])
    return app


async def _limit_body(request: Request) -> None:
    if len(await request.body()) > MAX_BODY_BYTES:
        raise TooLarge(f"The body is larger than {MAX_BODY_BYTES:,} bytes.")


def current_principal(request: Request) -> Principal:
    return principals.from_event(request.scope.get("aws.event") or {})


CurrentPrincipal = Annotated[Principal, Depends(current_principal)]


def require(action: Action, *, gone: bool = False) -> Any:
    """Dependency that yields the principal once ``action`` is allowed on the resource in the path.

    With ``project_id`` in the path the membership of that project counts; otherwise only what a role grants everywhere.
    ``gone`` as in ``check_access``.
    """

    def authorised(request: Request, principal: CurrentPrincipal) -> Principal:
        project_id = request.path_params.get("project_id")
        if project_id is None:
            check(principal, action)
        else:
            check_access(principal, action, project_id, gone=gone)
        return principal

    authorised.action = action  # type: ignore[attr-defined]  # lets a test read the table off the routes
    return Depends(authorised)


def etag(content: bytes | str) -> str:
    data = content.encode() if isinstance(content, str) else content
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'


def not_modified(request: Request, response: Response, tag: str) -> bool:
    """Set the ETag; True when the client already has this version (answer 304)."""
    response.headers["etag"] = tag
    offered = {part.strip() for part in request.headers.get("if-none-match", "").split(",")}
    return tag in offered or "*" in offered


def require_match(request: Request, tag: str) -> None:
    """Raise ``PreconditionFailed`` when the client sent If-Match for another version than ``tag``."""
    wanted = {part.strip() for part in request.headers.get("if-match", "*").split(",")}
    if tag not in wanted and "*" not in wanted:
        raise PreconditionFailed("It was changed since you read it.", next_action="Read it again and retry.")


def problem_response(problem: Problem) -> JSONResponse:
    return JSONResponse(problem.model_dump(exclude_none=True), problem.status, media_type=PROBLEM_JSON)


def _foundry_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FoundryError)
    return problem_response(error.problem())


def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = [{"field": ".".join(str(part) for part in e["loc"][1:]), "detail": e["msg"]} for e in error.errors()]
    first = f"{fields[0]['field'] or 'body'}: {fields[0]['detail']}" if fields else "The request is malformed."
    return problem_response(Invalid(first, errors=fields).problem())


_BY_STATUS: dict[int, Callable[[str], FoundryError]] = {404: NotFound, 401: Unauthenticated, 403: Forbidden}


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = _BY_STATUS.get(error.status_code)
    if error.status_code == 400:  # FastAPI's word for a body that Python cannot parse
        return problem_response(Invalid("The body is not JSON that can be read.").problem())
    if known:
        return problem_response(known(f"There is nothing at {request.method} {request.url.path}.").problem())
    code = str(error.detail).lower().replace(" ", "_")
    problem = Problem(
        type=f"https://foundry.dev/problems/{code}", title=str(error.detail), status=error.status_code,
        detail=f"{error.detail}: {request.method} {request.url.path}", code=code,
    )  # fmt: skip
    return problem_response(problem)


def _unexpected(request: Request, error: Exception) -> Response:
    logger.exception("unexpected", extra={"path": request.url.path})
    return problem_response(FoundryError("Something failed on our side; the fault has been logged.").problem())
