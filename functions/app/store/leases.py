"""Counters of what is leased and spent: one item each, changed only as it was read."""

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TypeVar

from foundry_core.errors import Conflict, TransientError
from foundry_core.events import Event
from foundry_core.table import conflicts, write

from functions.app.store.table import BudgetItem, outbox

R = TypeVar("R")
_TRIES = 12
_LONGEST_PAUSE_S = 0.2
_WINDOW_KEPT_S = 600


@dataclass
class Record:
    """A lease: cumulative totals. ``until_ms``: when it expires, or for a closed one when it was closed."""

    granted: int = 0
    spent: int = 0
    held: int = 0
    seq: int = 0
    closed: bool = False
    until_ms: int = 0


@dataclass
class Counter:
    committed: int = 0
    leases: dict[str, Record] = field(default_factory=dict)


def load(scope: str, kind: str, window_ms: int | None) -> Counter:
    return _counter(_item(scope, kind, window_ms))


def update(scope: str, kind: str, window_ms: int | None, change: Callable[[Counter], tuple[R, Event | None]]) -> R:
    """Read, ``change`` in place, write; again when another gateway was faster. Nothing is written for no change."""
    for tried in range(_TRIES):
        item = _item(scope, kind, window_ms)
        before, after = _counter(item), _counter(item)
        answer, event = change(after)
        if after == before:
            return answer
        keep(item, after)
        try:
            _save(item, event)
        except Conflict:
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.002 * 2**tried)))  # noqa: S311
            continue
        return answer
    raise TransientError(f"Too many gateways ask for {scope} at once.", next_action="Ask again.")


def keep(item: BudgetItem, counter: Counter) -> None:
    """Put the counter into the item."""
    item.committed = counter.committed
    item.leases = {lease_id: asdict(record) for lease_id, record in counter.leases.items()}


def _save(item: BudgetItem, event: Event | None) -> None:
    with conflicts("The counter was changed by another gateway."):
        if event is None:
            item.save()
        else:
            write(save=[item], create=[outbox(event)])


def _item(scope: str, kind: str, window_ms: int | None) -> BudgetItem:
    pk, sk = f"BUDGET#{scope}#{kind}", "TOTAL" if window_ms is None else f"WINDOW#{window_ms}"
    try:
        return BudgetItem.get(pk, sk, consistent_read=True)
    except BudgetItem.DoesNotExist:
        ends_at = None if window_ms is None else window_ms // 1000 + _WINDOW_KEPT_S
        return BudgetItem(pk, sk, committed=0, leases={}, expires_at=ends_at)


def _counter(item: BudgetItem) -> Counter:
    return Counter(int(item.committed), {lease_id: Record(**record) for lease_id, record in item.leases.items()})
