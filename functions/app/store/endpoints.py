"""Published endpoints. The name is the key: it is unique over all projects, because clients name nothing else. An
adapter's name is a key of the same kind, so that it is nobody else's either."""

from collections.abc import Callable, Iterable

from foundry_core.errors import NotFound
from foundry_core.events import Event
from foundry_core.table import conflicts, page, write

from functions.app.schemas import PublishedEndpoint
from functions.app.store import projects
from functions.app.store.table import (
    CONFIG,
    AdapterItem,
    AppTable,
    DeploymentItem,
    EndpointItem,
    config_version,
    one_or_none,
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
            create=[
                item,
                *_adapters(endpoint, endpoint.adapters),
                _deployment(deployment_id, endpoint.name),
                outbox(event),
            ],
            touch=[project],
            bump=[config_version()],
        )


def update(
    name: str, change: Callable[[PublishedEndpoint], tuple[PublishedEndpoint, Event] | None]
) -> PublishedEndpoint:
    """Read, change, write; nothing is written where ``change`` returns None."""

    def attempt() -> PublishedEndpoint:
        item = _item(name)
        before = _endpoint(item)
        changed = change(before)
        if changed is None:
            return before
        after, event = changed
        item.data = after.model_dump(mode="json")
        more, fewer = after.adapters.keys() - before.adapters.keys(), before.adapters.keys() - after.adapters.keys()
        with conflicts("The endpoint was changed by another writer."):
            write(
                save=[item], create=[*_adapters(after, more), outbox(event)], delete=_claimed(fewer),
                bump=[config_version()],
            )  # fmt: skip
        return after

    return optimistic(attempt)


def find(name: str) -> PublishedEndpoint | None:
    try:
        return _endpoint(_item(name))
    except NotFound:
        return None


def taken(name: str) -> bool:
    """Whether an endpoint or an adapter has the name."""
    return _named(name) is not None


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


def all_of(project_id: str) -> list[PublishedEndpoint]:
    """Through the index: what was written a moment ago may be missing."""
    items = AppTable.gsi1.query(f"PROJECT#{project_id}", AppTable.gsi1sk.startswith("ENDPOINT#"))
    return [_endpoint(item) for item in items if isinstance(item, EndpointItem)]


def name_of(deployment_id: str) -> str | None:
    """The endpoint that a deployment answers for."""
    deployment = one_or_none(DeploymentItem, f"DEPLOYMENT#{deployment_id}", "ENDPOINT")
    return None if deployment is None else deployment.endpoint_name


def delete(name: str, deployment_id: str, event: Event) -> None:
    item = _item(name)
    deployment = DeploymentItem.get(f"DEPLOYMENT#{deployment_id}", "ENDPOINT", consistent_read=True)
    with conflicts("The endpoint was changed by another writer."):
        write(
            delete=[item, *_claimed(_endpoint(item).adapters), deployment],
            create=[outbox(event)],
            bump=[config_version()],
        )


def _deployment(deployment_id: str, name: str) -> DeploymentItem:
    return DeploymentItem(f"DEPLOYMENT#{deployment_id}", "ENDPOINT", endpoint_name=name)


def _adapters(endpoint: PublishedEndpoint, names: Iterable[str]) -> list[AdapterItem]:
    return [AdapterItem(CONFIG, f"ENDPOINT#{name}", endpoint_name=endpoint.name) for name in names]


def _claimed(names: Iterable[str]) -> list[AdapterItem]:
    return [item for item in map(_named, names) if isinstance(item, AdapterItem)]


def _item(name: str) -> EndpointItem:
    item = _named(name)
    if not isinstance(item, EndpointItem):
        raise NotFound(f"There is no endpoint {name} in this project.", code="endpoint_not_found")
    return item


def _named(name: str) -> AppTable | None:
    return one_or_none(AppTable, CONFIG, f"ENDPOINT#{name}")


def _endpoint(item: EndpointItem) -> PublishedEndpoint:
    return PublishedEndpoint(**item.data)
