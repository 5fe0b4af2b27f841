"""Deployments of a project and what they were made from."""

from collections.abc import Callable

from foundry_core.errors import NotFound
from foundry_core.events import Event
from foundry_core.table import conflicts, page, write

from functions.cluster.schemas import Deployment, Spec
from functions.cluster.store.tables import (
    STALE,
    DeploymentItem,
    SpecItem,
    claim,
    claimed,
    data_of,
    outbox,
    until_written,
)

# One name space for all projects: the name is what clients of the gateway call.
_SCOPE = "deployment"


def insert(deployment: Deployment, spec: Spec, event: Event) -> Deployment:
    """``Conflict`` with code ``name_taken`` when another deployment has the name."""
    pk = _pk(deployment.project_id)
    item = DeploymentItem(pk, f"DEPLOYMENT#{deployment.id}", data=data_of(deployment))
    kept = SpecItem(pk, f"SPEC#{deployment.id}", data=data_of(spec))
    with conflicts(f"There is a deployment named {deployment.name} already.", code="name_taken"):
        write(create=[item, kept, claim(_SCOPE, deployment.name, deployment.id), *outbox(event)])
    return _deployment(item)


def load(project_id: str, deployment_id: str) -> Deployment:
    return _deployment(_item(project_id, deployment_id))


def load_spec(project_id: str, deployment_id: str) -> Spec:
    try:
        item = SpecItem.get(_pk(project_id), f"SPEC#{deployment_id}", consistent_read=True)
    except SpecItem.DoesNotExist as error:
        raise _missing(deployment_id) from error
    return Spec(**item.data)


def page_of(project_id: str, limit: int, cursor: str | None) -> tuple[list[Deployment], str | None]:
    items, following = page(DeploymentItem, _pk(project_id), prefix="DEPLOYMENT#", limit=limit, cursor=cursor)
    return [_deployment(item) for item in items], following


def update(project_id: str, deployment_id: str, change: Callable[[Deployment], Event | None]) -> Deployment:
    """Read, ``change`` in place, write with the returned event; again when another writer was faster."""

    def attempt() -> Deployment:
        item = _item(project_id, deployment_id)
        deployment = _deployment(item)
        event = change(deployment)
        item.data = data_of(deployment)
        with conflicts("changed meanwhile", code=STALE):
            write(save=[item], create=outbox(event))
        return _deployment(item)

    return until_written(f"Deployment {deployment_id}", attempt)


def delete(project_id: str, deployment_id: str, event: Event) -> None:
    """The deployment, its specification and its name in one transaction."""
    item = _item(project_id, deployment_id)
    spec = SpecItem.get(item.pk, f"SPEC#{deployment_id}", consistent_read=True)
    with conflicts(f"Deployment {deployment_id} was changed by another writer."):
        write(delete=[item, spec, *claimed(_SCOPE, item.data["name"])], create=outbox(event))


def _pk(project_id: str) -> str:
    return f"PROJECT#{project_id}"


def _item(project_id: str, deployment_id: str) -> DeploymentItem:
    try:
        return DeploymentItem.get(_pk(project_id), f"DEPLOYMENT#{deployment_id}", consistent_read=True)
    except DeploymentItem.DoesNotExist as error:
        raise _missing(deployment_id) from error


def _missing(deployment_id: str) -> NotFound:
    return NotFound(f"There is no deployment {deployment_id} in this project.", code="deployment_not_found",
                    next_action="foundry deployments list")  # fmt: skip


def _deployment(item: DeploymentItem) -> Deployment:
    return Deployment(**item.data, version=int(item.version or 0))
