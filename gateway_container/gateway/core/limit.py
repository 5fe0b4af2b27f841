"""Leased limits and budgets: what may still be spent is asked of slices that the control plane granted.

Pure bookkeeping: time comes in, messages go out and answers come in. The invariant is local and simple: under a lease
never more is spent and held than was granted. Together with the control plane's own (no more is granted than the
limit) it makes overspending impossible, whatever is lost, repeated or late.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence

from gateway.core import wire

WINDOW_MS = 60_000
EARLY_MS = 5_000  # the next minute's lease is opened this long before
SLICE_S = 2.0  # a slice is about this much of a gateway's own recent demand
IDLE_MS = 5_000  # a slice that nobody used for so long is given back
RENEW_MS = 20_000  # a message at least this often keeps a money lease (60 s) alive
FORGET_MS = 600_000
PER_MINUTE = ("requests", "tokens")


class Lease:
    """A cumulative ceiling and what was done under it. ``mark`` is told the amount at risk after each change."""

    __slots__ = ("expires_ms", "granted", "held", "id", "mark", "seq", "spent", "window_ms")

    def __init__(self, id: str, window_ms: int | None) -> None:
        self.id = id
        self.window_ms = window_ms
        self.granted = 0
        self.spent = 0
        self.held = 0
        self.expires_ms = 0
        self.seq = 0  # of the last message about it
        self.mark: memoryview | None = None

    @property
    def free(self) -> int:
        return self.granted - self.spent - self.held

    def hold(self, amount: int) -> None:
        self.held += amount
        if self.mark is not None:
            self.mark[0] = self.spent + self.held

    def settle(self, amount: int, used: int) -> None:
        """Release a hold of ``amount`` of which ``used`` was really spent."""
        self.held -= amount
        self.spent += used
        if self.mark is not None:
            self.mark[0] = self.spent + self.held


class Scope:
    """A limit of one kind on one key, project or endpoint, as this gateway sees it."""

    __slots__ = ("asked", "demand", "kind", "largest", "last_use_ms", "lease", "limit", "name", "next_lease",
                 "retry_at_ms", "sent_ms", "taken")  # fmt: skip

    def __init__(self, name: str, kind: str, limit: int) -> None:
        self.name = name
        self.kind = kind
        self.limit = limit
        self.lease: Lease | None = None
        self.next_lease: Lease | None = None
        self.retry_at_ms = 0  # the control plane had nothing to give; ask no earlier
        self.asked = False  # a message about it is on its way
        self.taken = 0  # since the last message
        self.demand = 0.0  # amount per second, smoothed
        self.largest = 0  # largest amount asked since the last message
        self.last_use_ms = 0
        self.sent_ms = 0

    @property
    def target(self) -> int:
        """How much should be free after a refill."""
        return max(4 * self.largest, int(self.demand * SLICE_S), 1)


Want = tuple[Scope, int]
Hold = tuple[Lease, int]


class LeaseBook:
    """All scopes of this gateway. ``nudge`` is called when a message to the control plane should go out soon."""

    def __init__(self, gateway_id: str, boot: str, open_bounds: dict[str, int] | None = None) -> None:
        self.prefix = f"{gateway_id}.{boot}"
        self.numbers = itertools.count(1)
        self.scopes: dict[tuple[str, str], Scope] = {}
        self.retired: dict[str, tuple[Scope, Lease]] = {}
        self.due: set[Scope] = set()
        self.plans: dict[tuple[str, str], tuple[Scope, ...]] = {}  # (key, endpoint) -> every limit that applies
        self.away = False
        self.open_bounds = open_bounds or {}
        self.nudge: Callable[[], None] = lambda: None
        self.opened: Callable[[Scope, Lease], None] = lambda scope, lease: None
        self.closed: Callable[[Lease], None] = lambda lease: None

    def scope(self, name: str, kind: str, limit: int) -> Scope:
        found = self.scopes.get((name, kind))
        if found is None:
            found = self.scopes[name, kind] = Scope(name, kind, limit)
        found.limit = limit
        return found

    def reserve(self, wants: Sequence[Want], now_ms: int) -> list[Hold] | Scope:
        """Hold every amount or none. Returns the holds, or the scope that is short."""
        for scope, amount in wants:
            lease = scope.lease
            if lease is None or lease.expires_ms <= now_ms or lease.granted - lease.spent - lease.held < amount:
                short = self._short(scope, amount, now_ms)
                if short is not None:
                    return short
        holds: list[Hold] = []
        for scope, amount in wants:
            lease = scope.lease
            assert lease is not None
            lease.hold(amount)
            holds.append((lease, amount))
            scope.taken += amount
            scope.last_use_ms = now_ms
            if amount > scope.largest:
                scope.largest = amount
            if lease.free * 2 < scope.target:
                self._ask(scope)
        return holds

    def _short(self, scope: Scope, amount: int, now_ms: int) -> Scope | None:
        """Try the next window's lease, then the bound for when the control plane is away; else ask and report."""
        scope.largest = max(scope.largest, amount)
        scope.last_use_ms = now_ms
        self._roll(scope, now_ms)
        lease = scope.lease
        if lease is not None and lease.expires_ms > now_ms and lease.free >= amount:
            return None
        if self.away and self._grant_unasked(scope, amount, now_ms):
            return None
        if now_ms >= scope.retry_at_ms:
            self._ask(scope)
        return scope

    def _ask(self, scope: Scope) -> None:
        if scope not in self.due and not scope.asked:
            self.due.add(scope)
            self.nudge()

    def _roll(self, scope: Scope, now_ms: int) -> None:
        """Leave an expired lease behind and step into the next window's where it is there."""
        lease = scope.lease
        if lease is None or lease.expires_ms > now_ms or lease.expires_ms == 0:  # 0: not answered yet
            return
        if lease.window_ms is None:
            self.retired[lease.id] = (scope, lease)
        scope.lease, scope.next_lease = scope.next_lease, None
        if scope.kind in PER_MINUTE:
            scope.retry_at_ms = 0

    def _grant_unasked(self, scope: Scope, amount: int, now_ms: int) -> bool:
        """Fail open within a bound per scope and minute; kinds without a bound fail closed."""
        bound = self.open_bounds.get(scope.kind, 0)
        if bound <= 0:
            return False
        lease = scope.lease
        if lease is None or lease.expires_ms <= now_ms:
            lease = scope.lease = self._open(scope, now_ms)
            lease.granted = min(bound, scope.limit)
            lease.expires_ms = (now_ms // WINDOW_MS + 1) * WINDOW_MS
        return lease.free >= amount

    def _open(self, scope: Scope, now_ms: int, window_ms: int | None = None) -> Lease:
        if scope.kind in PER_MINUTE and window_ms is None:
            window_ms = now_ms // WINDOW_MS * WINDOW_MS
        lease = Lease(f"{self.prefix}.{next(self.numbers)}", window_ms)
        self.opened(scope, lease)
        return lease

    # --- messages -----------------------------------------------------------------------------------------------

    def messages(self, now_ms: int, sweep: bool = True) -> list[wire.LeaseRequest]:
        """What to tell the control plane now: refills; in a sweep also renewals, what is given back, what has ended."""
        due, self.due = self.due, set()
        found: list[wire.LeaseRequest] = []
        if sweep:
            self._forget(now_ms)
            found += [self._ending(scope, lease) for scope, lease in self.retired.values() if lease.held == 0]
        for scope in list(self.scopes.values()) if sweep else due:
            self._roll(scope, now_ms)
            found.extend(self._of(scope, scope in due, now_ms))
        return found

    def _forget(self, now_ms: int) -> None:
        old = now_ms - FORGET_MS
        for name in [n for n, scope in self.scopes.items() if scope.lease is None and scope.last_use_ms < old]:
            del self.scopes[name]
            self.plans.clear()

    def _of(self, scope: Scope, asked: bool, now_ms: int) -> Iterable[wire.LeaseRequest]:
        lease = scope.lease
        busy = now_ms - scope.last_use_ms < IDLE_MS
        if asked and now_ms >= scope.retry_at_ms:
            yield self._refill(scope, now_ms)
        elif lease is not None and lease.window_ms is None:
            stale = now_ms - scope.sent_ms > RENEW_MS
            if not busy and (lease.free > 0 or stale):
                yield self._give_back(scope, lease, now_ms)
            elif stale:
                yield self._refill(scope, now_ms)
        if (
            busy
            and lease is not None
            and lease.window_ms is not None
            and scope.next_lease is None
            and (lease.expires_ms - now_ms < EARLY_MS)
        ):
            yield self._ahead(scope, lease, now_ms)

    def _refill(self, scope: Scope, now_ms: int) -> wire.LeaseRequest:
        if scope.lease is None:
            scope.lease = self._open(scope, now_ms)
        self._measure(scope, now_ms)
        scope.asked = True
        lease = scope.lease
        return _request(scope, lease, max(lease.spent + lease.held + scope.target, lease.granted))

    def _measure(self, scope: Scope, now_ms: int) -> None:
        elapsed_s = max(now_ms - scope.sent_ms, 50) / 1000 if scope.sent_ms else 1.0
        weight = min(elapsed_s / 2, 1.0)
        scope.demand += weight * (scope.taken / elapsed_s - scope.demand)
        scope.taken = 0
        scope.sent_ms = now_ms

    def _give_back(self, scope: Scope, lease: Lease, now_ms: int) -> wire.LeaseRequest:
        """Lower our own ceiling before the message goes out, so that nothing given back can be spent."""
        self._measure(scope, now_ms)
        lease.granted = lease.spent + lease.held
        scope.largest = 0
        if lease.held == 0:
            scope.lease = None
            self.retired[lease.id] = (scope, lease)
            return self._ending(scope, lease)
        return _request(scope, lease, lease.granted)

    def _ahead(self, scope: Scope, lease: Lease, now_ms: int) -> wire.LeaseRequest:
        window_ms = (lease.window_ms or 0) + WINDOW_MS
        scope.next_lease = self._open(scope, now_ms, window_ms)
        return _request(scope, scope.next_lease, scope.target)

    def _ending(self, scope: Scope, lease: Lease) -> wire.LeaseRequest:
        lease.seq += 1
        return wire.LeaseRequest(scope.name, scope.kind, lease.id, lease.seq, lease.spent, 0, lease.spent, close=True)

    def close_all(self) -> None:
        """Give everything back at the end of the process; the next messages say so."""
        for scope in self.scopes.values():
            lease, scope.lease, scope.next_lease = scope.lease, None, None
            if lease is not None and lease.window_ms is None:
                self.retired[lease.id] = (scope, lease)

    # --- answers ------------------------------------------------------------------------------------------------

    def apply(self, sent: Sequence[wire.LeaseRequest], reply: wire.LeaseReply, now_ms: int) -> None:
        """Take over what was granted. Only answers to leases that are still in use count."""
        self.away = False
        for request in sent:
            if request.close and (ended := self.retired.pop(request.lease_id, None)) is not None:
                self.closed(ended[1])
        asked = {request.lease_id: request.ceiling for request in sent if not request.close}
        for answer in reply.leases:
            scope = self.scopes.get((answer.scope, answer.kind))
            if scope is not None and answer.lease_id in asked:
                scope.asked = False
                self._take_over(scope, answer, asked[answer.lease_id], now_ms)

    def _take_over(self, scope: Scope, answer: wire.Lease, asked: int, now_ms: int) -> None:
        for lease in (scope.lease, scope.next_lease):
            if lease is None or lease.id != answer.lease_id:
                continue
            # More than was asked can only be an answer to an older message, from before something was given back.
            lease.granted = max(min(answer.granted, asked), 0)
            lease.expires_ms = answer.expires_at_ms
            if answer.retry_after_ms is not None:
                scope.retry_at_ms = now_ms + answer.retry_after_ms
            elif lease.free < scope.largest and lease is scope.lease and scope.last_use_ms > scope.sent_ms:
                self._ask(scope)  # others were faster; the next answer helps

    def failed(self, sent: Sequence[wire.LeaseRequest]) -> None:
        """The message may or may not have arrived: the totals will be repeated."""
        self.away = True
        for request in sent:
            scope = self.scopes.get((request.scope, request.kind))
            if scope is None:
                continue
            scope.asked = False
            if scope.next_lease is not None and scope.next_lease.id == request.lease_id:
                scope.next_lease = None
            elif not request.close:
                self.due.add(scope)


def _request(scope: Scope, lease: Lease, ceiling: int) -> wire.LeaseRequest:
    lease.seq += 1
    return wire.LeaseRequest(
        scope.name, scope.kind, lease.id, lease.seq, lease.spent, lease.held, ceiling, scope.largest, lease.window_ms
    )
