"""API keys of a project: the hash of the secret, never the secret."""

from collections.abc import Callable

from foundry_core.errors import NotFound
from foundry_core.events import Event
from foundry_core.table import conflicts, page, write

from functions.app.schemas import Key
from functions.app.store import projects
from functions.app.store.table import (
    CONFIG,
    KeyItem,
    NameItem,
    claim,
    claimed,
    config_version,
    naming,
    optimistic,
    outbox,
)


def insert(key: Key, sha256: str, event: Event) -> None:
    """``NotFound`` when the project is gone, ``Conflict`` with code ``name_taken``."""

    def attempt() -> None:
        project = projects.item_of(key.project_id)
        item = KeyItem(CONFIG, _sk(key.project_id, key.id), sha256=sha256, data=_data(key))
        items = [item, claim(_scope(key.project_id), key.name, key.id), outbox(event)]
        with naming(_scope(key.project_id), key.name, key.id), conflicts("The project was changed."):
            write(create=items, touch=[project], bump=[config_version()])

    optimistic(attempt)


def load(project_id: str, key_id: str) -> Key:
    return _key(_item(project_id, key_id))


def page_of(project_id: str, limit: int, cursor: str | None) -> tuple[list[Key], str | None]:
    items, following = page(KeyItem, CONFIG, prefix=f"KEY#{project_id}#", limit=limit, cursor=cursor)
    return [_key(item) for item in items], following


def update(project_id: str, key_id: str, change: Callable[[Key], tuple[Key, Event]]) -> Key:
    """Read, change, write; the name moves along. ``Conflict`` with code ``name_taken``."""

    def attempt() -> Key:
        item = _item(project_id, key_id)
        before = _key(item)
        after, event = change(before)
        item.data = _data(after)
        freed, taken = _renamed(before, after)
        with naming(_scope(project_id), after.name, key_id), conflicts("The key was changed by another writer."):
            write(save=[item], delete=freed, create=[*taken, outbox(event)], bump=[config_version()])
        return after

    return optimistic(attempt)


def _renamed(before: Key, after: Key) -> tuple[list[NameItem], list[NameItem]]:
    old = claimed(_scope(before.project_id), before.name)
    if before.name == after.name or old is None:
        return [], []
    return [old], [claim(_scope(after.project_id), after.name, after.id)]


def delete(project_id: str, key_id: str, event: Event) -> None:
    def attempt() -> None:
        item = _item(project_id, key_id)
        name = claimed(_scope(project_id), _key(item).name)
        with conflicts("The key was changed by another writer."):
            write(delete=[item, *([name] if name else [])], create=[outbox(event)], bump=[config_version()])

    optimistic(attempt)


def _item(project_id: str, key_id: str) -> KeyItem:
    try:
        return KeyItem.get(CONFIG, _sk(project_id, key_id), consistent_read=True)
    except KeyItem.DoesNotExist:
        raise NotFound(f"There is no key {key_id} in this project.", code="key_not_found") from None


def _sk(project_id: str, key_id: str) -> str:
    return f"KEY#{project_id}#{key_id}"


def _scope(project_id: str) -> str:
    return f"key#{project_id}"


def _key(item: KeyItem) -> Key:
    return Key(**item.data)


def _data(key: Key) -> dict[str, object]:
    return key.model_dump(mode="json", exclude_none=True)
