"""Files of projects: what clients see of each, and where its bytes are."""

from dataclasses import dataclass, replace
from typing import Any

from foundry_core.errors import NotFound
from foundry_core.table import conflicts, write

from functions.app.openai_wire import File
from functions.app.store.table import FileItem, first_of, living, living_one


@dataclass(frozen=True)
class StoredFile:
    """Its bytes are those of its ``parts``, in order: objects of object storage below ``folder``."""

    project_id: str
    file: File
    folder: str
    parts: tuple[str, ...]
    pending: bool = False  # its bytes have not come yet

    @property
    def keys(self) -> list[str]:
        return [f"{self.folder}/{part}" for part in self.parts]


def item_of(stored: StoredFile) -> FileItem:
    return FileItem(
        _pk(stored.project_id, stored.pending), stored.file.id, expires_at=stored.file.expires_at,
        folder=stored.folder, parts=list(stored.parts), data=stored.file.model_dump(mode="json"),
    )  # fmt: skip


def insert(stored: StoredFile) -> None:
    with conflicts("The file is there already."):
        write(create=[item_of(stored)])


def arrived(project_id: str, file_id: str) -> StoredFile:
    """The bytes are there: show it from now on. Said again, it changes nothing."""
    try:
        return load(project_id, file_id)
    except NotFound:
        item = _item(project_id, file_id, pending=True)
    stored = replace(_stored(project_id, item), pending=False)
    with conflicts("The file was changed by another writer."):
        write(delete=[item], create=[item_of(stored)])
    return stored


def load(project_id: str, file_id: str) -> StoredFile:
    return _stored(project_id, _item(project_id, file_id, pending=False))


def page_of(
    project_id: str, limit: int, after: str | None, oldest_first: bool, purpose: str | None
) -> tuple[list[StoredFile], bool]:
    """The files after the one with this id, and whether there are more."""
    found = living(FileItem, _pk(project_id, pending=False), limit + 1, after, newest_first=not oldest_first)
    files = (_stored(project_id, item) for item in found)
    return first_of((one for one in files if purpose in (None, one.file.purpose)), limit)


def count(project_id: str) -> int:
    """Those whose bytes are still to come are some, too. A little behind."""
    return sum(FileItem.count(_pk(project_id, pending)) for pending in (False, True))


def delete(project_id: str, file_id: str) -> None:
    with conflicts("The file was changed by another writer."):
        write(delete=[_item(project_id, file_id, pending=False)])


def _item(project_id: str, file_id: str, pending: bool) -> FileItem:
    item = living_one(FileItem, _pk(project_id, pending), file_id)
    if item is None:
        raise NotFound(f"There is no file {file_id}.", code="file_not_found")
    return item


def _pk(project_id: str, pending: bool) -> str:
    return f"FILES#{project_id}#{'PENDING' if pending else 'READY'}"


def _stored(project_id: str, item: FileItem) -> StoredFile:
    data: dict[str, Any] = item.data
    pending = str(item.pk).endswith("#PENDING")
    return StoredFile(project_id, File(**data), item.folder, tuple(item.parts), pending)
