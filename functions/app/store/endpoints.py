"""Published endpoints. The name is the key: it is unique over all projects, because clients name nothing else."""

from collections.abc import Callable

from foundry_core.errors import NotFound
from foundry_core.events import Event
from foundry_core.table import conflicts, page, write

from functions.app.schemas import PublishedEndpoint
from functions.app.store import projects
from functions.app.store.table import (
    CONFIG,
    AppTable,
    DeploymentItem,
    EndpointItem,
    config_version,
    optimistic,
    outbox,
)


def insert(endpoint: PublishedEndpoint, deployment_id: str, event: Event) -> None:
    """``Conflict`` when the name or the deployment has been published meanwhile."""
    item = EndpointItem(
        CONFIG, f"ENDPOINT#{endpoint.name}", gsi1pk=f"PROJECT#{endpoint.project_id}",
        gsi1sk=f"ENDPOINT#{endpoint.name}", data=endpoint.model_dump(mode="json"),
    )  # fmt: skip
    project = projects.item_of(endpoint.project_id)
    with conflicts("The endpoint was published by another writer."):
        write(
            create=[item, _deployment(deployment_id, endpoint.name), outbox(event)],
            touch=[project],
            bump=[config_version()],
        )


def update(
    name: str, change: Callable[[PublishedEndpoint], tuple[PublishedEndpoint, Event] | None]
) -> PublishedEndpoint:
    """Read, change, write; nothing is written where ``change`` returns None."""

    def attempt() -> PublishedEndpoint:
        item = _item(name)
        changed = change(_endpoint(item))
        if changed is None:
            return _endpoint(item)
        item.data = changed[0].model_dump(mode="json")
        with conflicts("The endpoint was changed by another writer."):
            write(save=[item], create=[outbox(changed[1])], bump=[config_version()])
        return changed[0]

    return optimistic(attempt)


def find(name: str) -> PublishedEndpoint | None:
    try:
        return _endpoint(_item(name))
    except NotFound:
        return None


def load(project_id: str, name: str) -> PublishedEndpoint:
    found = find(name)
    if found is None or found.project_id != project_id:
        raise NotFound(f"There is no endpoint {name} in this project.", code="endpoint_not_found")
    return found


def page_of(project_id: str, limit: int, cursor: str | None) -> tuple[list[PublishedEndpoint], str | None]:
    items, following = page(
        EndpointItem, f"PROJECT#{project_id}", index=AppTable.gsi1, prefix="ENDPOINT#", limit=limit, cursor=cursor
    )
    return [_endpoint(item) for item in items], following


def name_of(deployment_id: str) -> str | None:
    """The endpoint that a deployment answers for."""
    try:
        return DeploymentItem.get(f"DEPLOYMENT#{deployment_id}", "ENDPOINT", consistent_read=True).endpoint_name
    except DeploymentItem.DoesNotExist:
        return None


def delete(name: str, deployment_id: str, event: Event) -> None:
    item = _item(name)
    deployment = DeploymentItem.get(f"DEPLOYMENT#{deployment_id}", "ENDPOINT", consistent_read=True)
    with conflicts("The endpoint was changed by another writer."):
        write(delete=[item, deployment], create=[outbox(event)], bump=[config_version()])


def _deployment(deployment_id: str, name: str) -> DeploymentItem:
    return DeploymentItem(f"DEPLOYMENT#{deployment_id}", "ENDPOINT", endpoint_name=name)


def _item(name: str) -> EndpointItem:
    try:
        return EndpointItem.get(CONFIG, f"ENDPOINT#{name}", consistent_read=True)
    except EndpointItem.DoesNotExist:
        raise NotFound(f"There is no endpoint {name} in this project.", code="endpoint_not_found") from None


def _endpoint(item: EndpointItem) -> PublishedEndpoint:
    return PublishedEndpoint(**item.data)
