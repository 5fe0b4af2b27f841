"""Budgets that hold across any number of gateways: each leases slices of what is left (docs/gateway.md, the rules).

One counter per scope, kind and minute holds ``committed`` = Σ granted of open leases + Σ spent of closed ones, and its
leases; every message is one conditional write of that one item, so that no two grants can see the same remainder.
"""

import contextlib

from foundry_core.clock import now_ms
from foundry_core.errors import TransientError
from foundry_core.events import Event, new_event

from functions.app.schemas import Limits
from functions.app.services import snapshot
from functions.app.services.snapshot import Snapshot
from functions.app.store import leases as store
from functions.app.store.leases import Counter, Record
from functions.app.wire import Kind, Lease, LeaseRequest

LIFE_MS = 60_000
WINDOW_MS = 60_000
_RETRY_MS = 250
# A message that was overtaken arrives within seconds; until then it must find its lease closed.
CLOSED_KEPT_MS = 120_000
# So long after a money lease expired its gateway may still come back and say what it spent. Then the rest returns.
QUARANTINE_MS = 24 * 3_600_000
# A lease that no gateway ever closed: what it was told to have spent stays spent, its record goes.
_LOST_KEPT_MS = 7 * 24 * 3_600_000
MAX_OPEN = 1000
MAX_CLOSED = 200  # with the open ones and the longest ids, what an item of the table holds (400 KB)
TURN_MS = 2_500  # gateways wait 5 s for an answer


def lease(gateway: str, requests: list[LeaseRequest]) -> list[Lease]:
    """``gateway`` is the registered gateway: its leases are its own, whatever the ids. What a turn does not get to has
    no answer and is sent again; so is a message whose counter too many ask for at once: the others do not wait."""
    current, ends_ms = snapshot.current(), now_ms() + TURN_MS
    answers: list[Lease] = []
    for request in requests:
        if now_ms() >= ends_ms:
            break
        with contextlib.suppress(TransientError):
            answers.append(_one(gateway, request, current))
    return answers


def _one(gateway: str, request: LeaseRequest, current: Snapshot) -> Lease:
    limits = current.limits.get(request.scope)
    at_ms = now_ms()
    if (limits is None and not request.close) or not in_time(request, at_ms):
        return _answer(request, request.spent, at_ms)
    limit = limit_of(limits, request.kind)

    def change(counter: Counter) -> tuple[Lease, Event | None]:
        before = counter.committed
        answer = apply(counter, f"{gateway}/{request.lease_id}", request, limit, at_ms)
        ordered = request.kind == "wake" and counter.committed > before
        return answer, _wake_order(request, current.owners.get(request.scope, "")) if ordered else None

    counter_name = current.counters.get(request.scope, request.scope)
    return store.update(counter_name, request.kind, window_of(request), change)


def window_of(request: LeaseRequest) -> int | None:
    return request.window_ms if request.kind in {"requests", "tokens"} else None


def in_time(request: LeaseRequest, at_ms: int) -> bool:
    """A minute that can still be spent in (the last, this or the next one), or no minute at all."""
    if request.kind not in {"requests", "tokens"}:
        return True
    window_ms = request.window_ms
    return window_ms is not None and window_ms % WINDOW_MS == 0 and abs(window_ms - at_ms) < 2 * WINDOW_MS


def limit_of(limits: Limits | None, kind: Kind) -> int | None:
    """None is no limit."""
    if kind == "wake":
        return 1
    field_name = {"requests": "requests_per_minute", "tokens": "tokens_per_minute", "money_nanos": "budget_nanos"}[kind]
    value: int | None = getattr(limits, field_name, None)
    return value


def apply(counter: Counter, lease_id: str, request: LeaseRequest, limit: int | None, at_ms: int) -> Lease:
    """Change ``counter`` as the message asks; the rules in order."""
    forget(counter, request.kind, at_ms)
    known = counter.leases.get(lease_id)
    if request.close:
        return _close(counter, known, request, at_ms)
    if known is None:
        if sum(not record.closed for record in counter.leases.values()) >= MAX_OPEN:
            return _answer(request, request.spent, at_ms, _RETRY_MS)
        known = counter.leases[lease_id] = Record()
    retry_after_ms = None
    if request.seq > known.seq and not known.closed:
        retry_after_ms = _change(counter, known, request, limit)
        known.until_ms = expiry(request, at_ms)
    return _answer(request, known.granted, at_ms if known.closed else known.until_ms, retry_after_ms)


def _change(counter: Counter, known: Record, request: LeaseRequest, limit: int | None) -> int | None:
    used = request.spent + request.held
    more = request.ceiling - known.granted
    if limit is not None and more > 0:
        more = share(limit - counter.committed, more, used + request.needed - known.granted)
    granted = max(used, known.granted + more)
    counter.committed += granted - known.granted
    known.granted, known.spent, known.held, known.seq = granted, request.spent, request.held, request.seq
    return _RETRY_MS if granted < request.ceiling and granted - used < request.needed else None


def share(left: int, wanted: int, needed: int) -> int:
    """How much of what is left a gateway gets: at most half of it near the end, so that others find some too.
    Less than ``needed`` is of no use, and is not given."""
    given = min(wanted, max(left // 2, needed))
    return given if 0 < given <= left else 0


def _close(counter: Counter, known: Record | None, request: LeaseRequest, at_ms: int) -> Lease:
    if known is not None and not known.closed:
        spent = 0 if request.kind == "wake" else request.spent
        counter.committed += spent - known.granted
        known.granted, known.spent, known.held, known.closed, known.until_ms = spent, spent, 0, True, at_ms
        _forget_oldest_closed(counter)
    return _answer(request, request.spent, at_ms)


def forget(counter: Counter, kind: Kind, at_ms: int) -> None:
    """Take back what lost leases leave, and drop records that no message can concern any more. An order to wake returns
    when its gateway is gone; money stays committed until its lease is closed or out of quarantine."""
    for lease_id, record in list(counter.leases.items()):
        if kind == "money_nanos" and not record.closed and record.until_ms + QUARANTINE_MS < at_ms:
            _cut(counter, record)
        kept_ms = CLOSED_KEPT_MS if record.closed else 0 if kind == "wake" else _LOST_KEPT_MS
        if record.until_ms + kept_ms < at_ms:
            if kind == "wake" and not record.closed:
                counter.committed -= record.granted
            del counter.leases[lease_id]


def _forget_oldest_closed(counter: Counter) -> None:
    closed = [lease_id for lease_id, record in counter.leases.items() if record.closed]
    for lease_id in sorted(closed, key=lambda id_: counter.leases[id_].until_ms)[:-MAX_CLOSED]:
        del counter.leases[lease_id]


def _cut(counter: Counter, record: Record) -> None:
    """Down to what its gateway last told to have spent or in flight, which it does before it uploads rows of more. The
    record stays open: a gateway that comes back later still corrects it."""
    told = record.spent + record.held
    counter.committed += told - record.granted
    record.granted = told


def expiry(request: LeaseRequest, at_ms: int) -> int:
    window_ms = window_of(request)
    return at_ms + LIFE_MS if window_ms is None else window_ms + WINDOW_MS


def _answer(request: LeaseRequest, granted: int, expires_at_ms: int, retry_after_ms: int | None = None) -> Lease:
    return Lease(
        scope=request.scope, kind=request.kind, lease_id=request.lease_id, granted=granted,
        expires_at_ms=expires_at_ms, retry_after_ms=retry_after_ms,
    )  # fmt: skip


def _wake_order(request: LeaseRequest, project_id: str) -> Event:
    deployment_id = request.scope.removeprefix("deployment:").split("/")[0]
    data = {"deployment_id": deployment_id, "project_id": project_id}
    return new_event("foundry.deployment.wake_wanted.v1", source="app", subject=deployment_id, data=data)
