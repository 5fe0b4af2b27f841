"""Batches of projects: what clients see of each, who runs it, how far it is."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from foundry_core.clock import now_ms
from foundry_core.errors import NotFound, Unavailable
from foundry_core.table import Gsi1, conflicts, write
from pydantic import BaseModel
from pynamodb.exceptions import QueryError

from functions.app.openai_wire import Batch
from functions.app.store.files import StoredFile, item_of
from functions.app.store.table import AppTable, BatchItem, first_of, living, living_one, optimistic

R = TypeVar("R")
_OPEN = "BATCHES#OPEN"


class PartsStored(BaseModel):
    names: list[str] = []
    bytes: int = 0


class StoredBatch(BaseModel):
    """``claim_until_ms``: from then on any gateway may claim it; none may once it is ``closed``. ``claims``: how many
    did since it was last further, or given back."""

    batch: Batch
    project_id: str
    key_id: str
    address: str
    input_bytes: int
    closed: bool = False
    claim_id: str = ""
    claim_until_ms: int = 0
    claimed_by: str = ""
    claims: int = 0
    done_lines: int = 0
    done_bytes: int = 0
    output: PartsStored = PartsStored()
    error: PartsStored = PartsStored()


def insert(stored: StoredBatch, expires_at: int) -> None:
    item = BatchItem(_pk(stored.project_id), stored.batch.id, expires_at=expires_at)
    with conflicts("The batch is there already."):
        write(create=[_filled(item, stored)])


def load(project_id: str, batch_id: str) -> StoredBatch:
    return StoredBatch(**_item(project_id, batch_id).data)


def page_of(project_id: str, limit: int, after: str | None) -> tuple[list[StoredBatch], bool]:
    """Newest first: the batches after the one with this id, and whether there are more."""
    found = living(BatchItem, _pk(project_id), limit + 1, after)
    return first_of((StoredBatch(**item.data) for item in found), limit)


def open_ones(project_id: str) -> int:
    """How many of the project have not ended. A little behind, as the index is."""
    return int(AppTable.gsi1.count(_OPEN, filter_condition=AppTable.pk == _pk(project_id)))


def claimable(limit: int) -> list[StoredBatch]:
    """Open ones that nobody runs, the one that waits longest first. A little behind, as the index is."""
    return [StoredBatch(**item.data) for item in _claimable(limit)]


def any_claimable() -> bool:
    """``Unavailable`` when the index does not say: it is busy, or being built."""
    try:
        return any(_claimable(1))
    except QueryError as error:
        raise Unavailable(f"The index of open batches did not answer: {error}") from error


def _claimable(limit: int) -> Iterator[BatchItem]:
    found = AppTable.gsi1.query(_OPEN, Gsi1.gsi1sk < f"{now_ms():015}", limit=limit)
    return (item for item in found if isinstance(item, BatchItem))


def update(project_id: str, batch_id: str, change: Callable[[StoredBatch], tuple[R, list[StoredFile]]]) -> R:
    """Read, ``change`` in place, write, together with the files that it makes."""

    def attempt() -> R:
        item = _item(project_id, batch_id)
        stored = StoredBatch(**item.data)
        answer, files = change(stored)
        with conflicts("The batch was changed by another writer."):
            write(save=[_filled(item, stored)], create=[item_of(file) for file in files])
        return answer

    return optimistic(attempt)


def _filled(item: BatchItem, stored: StoredBatch) -> BatchItem:
    item.data = stored.model_dump(mode="json")
    item.gsi1pk = None if stored.closed else _OPEN
    item.gsi1sk = None if stored.closed else f"{stored.claim_until_ms:015}#{stored.batch.id}"
    return item


def _item(project_id: str, batch_id: str) -> BatchItem:
    item = living_one(BatchItem, _pk(project_id), batch_id)
    if item is None:
        raise NotFound(f"There is no batch {batch_id}.", code="batch_not_found")
    return item


def _pk(project_id: str) -> str:
    return f"BATCHES#{project_id}"
