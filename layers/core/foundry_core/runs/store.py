"""The runs table: the only file that knows it. Every change is conditional on the version that was read."""

from collections.abc import Callable, Iterator
from typing import Any

from pynamodb.attributes import JSONAttribute, UnicodeAttribute

from foundry_core.errors import Conflict, NotFound, TransientError
from foundry_core.events import Event, OutboxFields, outbox_keys
from foundry_core.runs.models import Run, RunStatus
from foundry_core.table import Gsi1, Item, conflicts, meta, page, write

_TRIES = 8


class RunsTable(Item):
    Meta = meta("runs")
    gsi1 = Gsi1()


class RunItem(RunsTable, discriminator="run"):
    status = UnicodeAttribute()
    run = JSONAttribute()


class RunOutbox(OutboxFields, RunsTable, discriminator="outbox"):
    pass


def owner_of(project_id: str | None) -> str:
    return f"PROJECT#{project_id}" if project_id else "PLATFORM"


def insert(run: Run, event: Event) -> None:
    item = RunItem(f"RUN#{run.id}", "RUN", gsi1pk=owner_of(run.project_id), gsi1sk=f"RUN#{run.id}")
    _fill(item, run)
    with conflicts(f"There is a run {run.id} already."):
        write(create=[item, RunOutbox(**outbox_keys(event))])


def load(run_id: str) -> Run:
    return _run(_item(run_id))


def update(run_id: str, change: Callable[[Run], Event | None]) -> Run:
    """Read, ``change`` in place, write; again when another writer was faster. The returned event goes out with it."""
    for _ in range(_TRIES):
        item = _item(run_id)
        run = _run(item)
        event = change(run)
        _fill(item, run)
        try:
            with conflicts(f"Run {run_id} was changed by another writer."):
                write(save=[item], create=[RunOutbox(**outbox_keys(event))] if event else [])
        except Conflict:
            continue
        return _run(item)
    raise TransientError(f"Run {run_id} is being changed by too many writers.", next_action="Try again.")


def of_owner(project_id: str | None, limit: int, cursor: str | None) -> tuple[list[Run], str | None]:
    items, following = page(
        RunItem, owner_of(project_id), index=RunsTable.gsi1, limit=limit, cursor=cursor, newest_first=True
    )
    return [_run(item) for item in items], following


def every_of_owner(project_id: str | None) -> Iterator[Run]:
    """Eventually consistent: a run of the last second may be missing."""
    for item in RunsTable.gsi1.query(owner_of(project_id)):
        yield _run(item)


def unfinished() -> Iterator[Run]:
    """Every run that has not ended. A scan: for the boot-time reconciler only."""
    for item in RunItem.scan(RunItem.status.is_in(RunStatus.PENDING, RunStatus.RUNNING)):
        yield _run(item)


def _item(run_id: str) -> RunItem:
    try:
        return RunItem.get(f"RUN#{run_id}", "RUN", consistent_read=True)
    except RunItem.DoesNotExist as error:
        raise NotFound(f"There is no run {run_id}.", code="run_not_found") from error


def _fill(item: RunItem, run: Run) -> None:
    item.status = run.status.value
    item.run = run.model_dump(mode="json", exclude={"version"})


def _run(item: RunItem) -> Run:
    data: dict[str, Any] = item.run
    return Run(**data, version=int(item.version or 0))
