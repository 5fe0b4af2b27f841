"""Projects and their names."""

from collections.abc import Callable

from foundry_core.errors import Conflict, NotFound
from foundry_core.events import Event
from foundry_core.permissions import Level
from foundry_core.table import conflicts, every, page, write

from functions.app.schemas import Member, Project
from functions.app.store.members import member_item
from functions.app.store.table import (
    CONFIG,
    AppTable,
    CredentialItem,
    EndpointItem,
    KeyItem,
    MemberItem,
    NameItem,
    ProjectItem,
    claim,
    claimed,
    config_version,
    naming,
    optimistic,
    outbox,
)

_CHUNK = 40  # a transaction holds 100 items, and a key takes two


def insert(project: Project, owner: Member, event: Event) -> None:
    """The project, its name and its first owner. ``Conflict`` with code ``name_taken``."""
    item = ProjectItem(CONFIG, f"PROJECT#{project.id}", data=_data(project))
    items = [item, claim("project", project.name, project.id), member_item(project.id, owner), outbox(event)]
    with naming("project", project.name, project.id), conflicts("The project is there already."):
        write(create=items, bump=[config_version()])


def load(project_id: str) -> Project:
    return _project(item_of(project_id))


def item_of(project_id: str) -> ProjectItem:
    try:
        return ProjectItem.get(CONFIG, f"PROJECT#{project_id}", consistent_read=True)
    except ProjectItem.DoesNotExist:
        raise NotFound(f"There is no project {project_id}.", code="project_not_found") from None


def page_of_all(limit: int, cursor: str | None) -> tuple[list[Project], str | None]:
    items, following = page(ProjectItem, CONFIG, prefix="PROJECT#", limit=limit, cursor=cursor)
    return [_project(item) for item in items], following


def page_of_user(user_id: str, limit: int, cursor: str | None) -> tuple[list[Project], str | None]:
    index = AppTable.gsi1
    members, following = page(MemberItem, f"USER#{user_id}", index=index, limit=limit, cursor=cursor)
    keys = [(CONFIG, f"PROJECT#{member.project_id}") for member in members]
    found = {item.sk: item for item in ProjectItem.batch_get(keys, consistent_read=True)} if keys else {}
    return [_project(found[sk]) for _, sk in keys if sk in found], following


def update(project_id: str, change: Callable[[Project], tuple[Project, Event]]) -> Project:
    """Read, change, write; the name moves along. ``Conflict`` with code ``name_taken``."""

    def attempt() -> Project:
        item = item_of(project_id)
        before = _project(item)
        after, event = change(before)
        item.data = _data(after)
        freed, taken = _renamed(before, after)
        with naming("project", after.name, project_id), conflicts("The project was changed by another writer."):
            write(save=[item], delete=freed, create=[*taken, outbox(event)], bump=[config_version()])
        return after

    return optimistic(attempt)


def _renamed(before: Project, after: Project) -> tuple[list[NameItem], list[NameItem]]:
    old = claimed("project", before.name)
    if before.name == after.name or old is None:
        return [], []
    return [old], [claim("project", after.name, after.id)]


def delete(project_id: str, event: Event) -> None:
    """Keys first, then members, the project itself last: what is interrupted can be repeated.
    ``Conflict`` with code ``project_in_use`` while an endpoint is published."""
    optimistic(lambda: _delete(project_id, event))


def _delete(project_id: str, event: Event) -> None:
    item = item_of(project_id)  # read first: a key or an endpoint made from here on changes its version
    _refuse_in_use(project_id)
    _delete_keys(project_id)
    _delete_credentials(project_id)
    last = _delete_members(project_id)
    name = claimed("project", _project(item).name)
    with conflicts("The project was changed by another writer."):
        write(delete=[item, *last, *([name] if name else [])], create=[outbox(event)], bump=[config_version()])


def _refuse_in_use(project_id: str) -> None:
    names = [e.sk.removeprefix("ENDPOINT#") for e in every(EndpointItem, CONFIG, prefix="ENDPOINT#")
             if e.data["project_id"] == project_id]  # fmt: skip
    if names:
        raise Conflict(
            f"The project still serves {', '.join(names)}.",
            code="project_in_use",
            next_action="Delete its deployments first.",
        )


def _delete_keys(project_id: str) -> None:
    keys = list(every(KeyItem, CONFIG, prefix=f"KEY#{project_id}#"))
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        claims = [claimed(f"key#{project_id}", key.data["name"]) for key in chunk]
        with conflicts("A key was changed by another writer."):
            write(delete=[*chunk, *(one for one in claims if one)], bump=[config_version()])


def _delete_credentials(project_id: str) -> None:
    credentials = list(every(CredentialItem, CONFIG, prefix=f"CREDENTIAL#{project_id}#"))
    for start in range(0, len(credentials), _CHUNK):
        with conflicts("A credential was changed by another writer."):
            write(delete=credentials[start : start + _CHUNK], bump=[config_version()])


def _delete_members(project_id: str) -> list[MemberItem]:
    """Delete all but a transaction's worth, owners last; returns the rest."""
    members = list(every(MemberItem, f"PROJECT#{project_id}", prefix="MEMBER#"))
    members.sort(key=lambda member: member.level == Level.OWNER)
    while len(members) > _CHUNK:
        with conflicts("A membership was changed by another writer."):
            write(delete=members[:_CHUNK])
        members = members[_CHUNK:]
    return members


def _project(item: ProjectItem) -> Project:
    return Project(**item.data)


def _data(project: Project) -> dict[str, object]:
    return project.model_dump(mode="json", exclude_none=True)
