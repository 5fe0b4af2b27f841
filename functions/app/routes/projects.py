"""Routes of projects, their members and their endpoints."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from foundry_core.http import CurrentPrincipal, require, require_match
from foundry_core.membership import check_access
from foundry_core.permissions import Action
from foundry_core.principal import Principal

from functions.app.routes.common import UNCHANGED, Cursor, Id, Limit, tag_of, tagged
from functions.app.schemas import (
    Endpoint,
    EndpointChange,
    EndpointCreate,
    Member,
    MemberPut,
    Page,
    Project,
    ProjectChange,
    ProjectCreate,
)
from functions.app.services import endpoints, members
from functions.app.services import projects as service

router = APIRouter(prefix="/projects", tags=["projects"])
Creator = Annotated[Principal, require(Action.PROJECTS_CREATE)]
Reader = Annotated[Principal, require(Action.PROJECT_READ)]
Writer = Annotated[Principal, require(Action.PROJECT_WRITE)]
Deployer = Annotated[Principal, require(Action.DEPLOY)]


@router.get("")
def list_projects(principal: CurrentPrincipal, limit: Limit = 50, cursor: Cursor = None) -> Page[Project]:
    """The projects that you may read."""
    items, following = service.page_of(principal, limit, cursor)
    return Page(items=items, next_cursor=following)


@router.post("", status_code=201)
def create_project(body: ProjectCreate, response: Response, principal: Creator) -> Project:
    """Create a project; you become its owner."""
    project = service.create(body, principal)
    response.headers["location"] = f"/projects/{project.id}"
    return project


@router.get("/{project_id}", responses=UNCHANGED)
def get_project(project_id: Id, request: Request, response: Response, _: Reader) -> Project:
    """One project."""
    return tagged(request, response, service.get(project_id))


@router.patch("/{project_id}")
def change_project(
    project_id: Id, body: ProjectChange, request: Request, response: Response, principal: Writer
) -> Project:
    """Rename it, set or lift its limits. With If-Match only if it is still as you read it."""
    project = service.change(project_id, body, principal, lambda now: require_match(request, tag_of(now)))
    response.headers["etag"] = tag_of(project)
    return project


@router.delete("/{project_id}", status_code=204)
def delete_project(project_id: Id, principal: Writer) -> None:
    """Delete a project and revoke its keys; refused while it has deployments or serves an endpoint."""
    service.delete(project_id, principal)


@router.get("/{project_id}/members")
def list_members(project_id: Id, _: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[Member]:
    """Who belongs to the project."""
    items, following = members.page_of(project_id, limit, cursor)
    return Page(items=items, next_cursor=following)


@router.put("/{project_id}/members/{user_id}")
def put_member(project_id: Id, user_id: Id, body: MemberPut, principal: Writer) -> Member:
    """Add a member, by id or e-mail address, or change the level."""
    return members.put(project_id, user_id, body.level, principal)


@router.delete("/{project_id}/members/{user_id}", status_code=204)
def delete_member(project_id: Id, user_id: Id, principal: Writer) -> None:
    """Remove a member; the last owner stays."""
    members.delete(project_id, user_id, principal)


@router.get("/{project_id}/endpoints")
def list_endpoints(project_id: Id, _: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[Endpoint]:
    """The names that the project's keys can call."""
    items, following = endpoints.page_of(project_id, limit, cursor)
    return Page(items=items, next_cursor=following)


@router.post("/{project_id}/endpoints", status_code=201)
def create_endpoint(project_id: Id, body: EndpointCreate, response: Response, principal: Writer) -> Endpoint:
    """Have an external provider answer for a name; gateways follow within two seconds. For owners: it says where the
    project's credential is sent, and what a token counts against its budget."""
    endpoint = endpoints.create(project_id, body, principal)
    response.headers["location"] = f"/projects/{project_id}/endpoints/{endpoint.name}"
    return endpoint


@router.get("/{project_id}/endpoints/{name}", responses=UNCHANGED)
def get_endpoint(project_id: Id, name: Id, request: Request, response: Response, _: Reader) -> Endpoint:
    """One endpoint."""
    return tagged(request, response, endpoints.get(project_id, name))


@router.patch("/{project_id}/endpoints/{name}")
def change_endpoint(
    project_id: Id, name: Id, body: EndpointChange, request: Request, response: Response, principal: Deployer
) -> Endpoint:
    """Set or lift the limits of an endpoint, change its policy; gateways follow within two seconds. Guardrails that use
    a credential of the project are for owners."""
    if body.uses_credential:
        check_access(principal, Action.PROJECT_WRITE, project_id)
    endpoint = endpoints.change(project_id, name, body, principal, lambda now: require_match(request, tag_of(now)))
    response.headers["etag"] = tag_of(endpoint)
    return endpoint


@router.delete("/{project_id}/endpoints/{name}", status_code=204)
def delete_endpoint(project_id: Id, name: Id, principal: Deployer) -> None:
    """Withdraw the endpoint of an external provider; that of a deployment goes with the deployment."""
    endpoints.delete(project_id, name, principal)
