"""Leased limits and budgets: what may still be spent is asked of slices that the control plane granted.

Pure bookkeeping: time comes in, messages go out and answers come in. The invariant is local and simple: under a lease
never more is spent and held than was granted. Together with the control plane's own (no more is granted than the
limit) it makes overspending impossible, whatever is lost, repeated or late.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from gateway.core import wire
from gateway.core.lease import MOST, NO_LEASE, PER_MINUTE, WINDOW_MS, Amounts, Lease, Plan, Scope, part
from gateway.core.snapshot import Endpoint, Key

EARLY_MS: Final = 5_000  # the next minute's lease is opened this long before
IDLE_MS: Final = 5_000  # a slice that nobody used for so long is given back
RENEW_MS: Final = 20_000  # a message at least this often keeps a money lease (60 s) alive
REFUSED_MS: Final = 30_000  # so long after a refused message its limit is not asked for again
FORGET_MS: Final = 600_000
NEVER_MS: Final = 2**61


class LeaseBook:
    """All scopes of this gateway. ``nudge`` is called when a message to the control plane should go out soon."""

    def __init__(self, gateway_id: str, boot: str, open_bounds: dict[str, int] | None = None) -> None:
        self.prefix = f"{gateway_id}.{boot}"
        self.numbers = itertools.count(1)
        self.scopes: dict[tuple[str, str], Scope] = {}
        self.retired: dict[str, tuple[Scope, Lease]] = {}
        self.due: set[Scope] = set()
        self.plans: dict[Key, dict[str, tuple[Endpoint, Plan]]] = {}  # what a key and a model lead to
        self.next_expiry_ms = NEVER_MS
        self.away = False
        self.away_since_ms = 0
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

    def reserve(self, plan: Plan, amounts: Amounts, now_ms: int) -> list[Lease] | Scope:
        """Hold every amount or none. Returns the leases that hold them, or the scope that is short."""
        if now_ms >= self.next_expiry_ms:
            self._expire(now_ms)
        leases: list[Lease] = []
        for scope in plan:
            lease = scope.lease
            amount = part(amounts, scope.index)
            free = lease.free - amount
            if free < scope.low:
                lease = self._run_low(scope, amount, now_ms)
                free = lease.free - amount
                if free < 0:
                    return self._undo(plan, amounts, leases, now_ms)
            lease.free = free
            if lease.mark is not None:
                lease.mark[0] = lease.granted - free
            leases.append(lease)
        return leases

    def _undo(self, plan: Plan, amounts: Amounts, leases: Sequence[Lease], now_ms: int) -> Scope:
        """Let go of what is held already, ask for everything else that is short, and name the first short one."""
        for scope, lease in zip(plan, leases, strict=False):
            lease.settle(part(amounts, scope.index), 0)
        for scope in plan[len(leases) + 1 :]:
            if scope.lease.free < part(amounts, scope.index):
                self._run_low(scope, part(amounts, scope.index), now_ms)
        return plan[len(leases)]

    def _run_low(self, scope: Scope, amount: int, now_ms: int) -> Lease:
        """Ask for a refill; when the control plane is away, take what may be taken unasked."""
        if amount > scope.limit:
            return scope.lease  # never to be had: asking would take from others what is of no use
        if amount > scope.largest:
            scope.largest = amount
            scope.low = scope.target // 2
        if scope.lease.free < amount and self.away:
            self._grant_unasked(scope, now_ms)
        if scope.lease.free - amount < scope.low and now_ms >= scope.retry_at_ms:
            self._ask(scope)
        return scope.lease

    def _ask(self, scope: Scope) -> None:
        if scope not in self.due and not scope.asked:
            self.due.add(scope)
            self.nudge()

    def _expire(self, now_ms: int) -> None:
        """Leave expired leases behind and step into the next window's where they are there."""
        self.next_expiry_ms = NEVER_MS
        for scope in self.scopes.values():
            lease = scope.lease
            if lease.expires_ms == 0:
                continue
            if lease.expires_ms <= now_ms:
                self._retire(scope)
                if scope.next_lease is not None:
                    scope.use(scope.next_lease)
                    scope.next_lease = None
                if scope.kind in PER_MINUTE:
                    scope.retry_at_ms = 0
            if scope.lease.expires_ms:
                self.next_expiry_ms = min(self.next_expiry_ms, scope.lease.expires_ms)

    def _retire(self, scope: Scope) -> None:
        lease = scope.lease
        if lease is not NO_LEASE and lease.window_ms is None:
            self.retired[lease.id] = (scope, lease)
        scope.use(NO_LEASE)

    def _grant_unasked(self, scope: Scope, now_ms: int) -> None:
        """Fail open within a bound per scope and minute; kinds without a bound fail closed."""
        bound = min(self.open_bounds.get(scope.kind, 0), scope.limit)
        if bound > 0 and scope.lease.expires_ms == 0:
            if scope.lease is NO_LEASE:
                scope.use(self._open(scope, now_ms))
            scope.lease.grant(bound)
            scope.lease.expires_ms = (now_ms // WINDOW_MS + 1) * WINDOW_MS
            self.next_expiry_ms = min(self.next_expiry_ms, scope.lease.expires_ms)

    def _open(self, scope: Scope, now_ms: int, window_ms: int | None = None) -> Lease:
        if scope.kind in PER_MINUTE and window_ms is None:
            window_ms = now_ms // WINDOW_MS * WINDOW_MS
        lease = Lease(f"{self.prefix}.{next(self.numbers)}", window_ms)
        self.opened(scope, lease)
        return lease

    # --- messages -----------------------------------------------------------------------------------------------

    def messages(self, now_ms: int, sweep: bool = True) -> list[wire.LeaseRequest]:
        """What to tell the control plane now: refills; in a sweep also renewals, what is given back, what has ended."""
        if now_ms >= self.next_expiry_ms:
            self._expire(now_ms)
        due, self.due = self.due, set()
        found = [self._refill(scope, now_ms) for scope in due if now_ms >= scope.retry_at_ms]
        if sweep:
            for scope in self.scopes.values():
                if scope.lease is not NO_LEASE and scope not in due:
                    found.extend(self._keep_up(scope, now_ms))
            found += [self._ending(scope, lease) for scope, lease in self.retired.values() if lease.held == 0]
            self._forget(now_ms)
        return found

    def _forget(self, now_ms: int) -> None:
        old = now_ms - FORGET_MS
        for name in [n for n, s in self.scopes.items() if s.lease is NO_LEASE and s.idle_since_ms < old]:
            del self.scopes[name]
            self.plans.clear()

    def _keep_up(self, scope: Scope, now_ms: int) -> Iterable[wire.LeaseRequest]:
        lease = scope.lease
        idle = scope.idle(now_ms, IDLE_MS)
        if lease.window_ms is not None:
            if not idle and scope.next_lease is None and lease.expires_ms - now_ms < EARLY_MS:
                yield self._ahead(scope, lease, now_ms)
        elif idle:
            self._give_back(scope, now_ms)
        elif now_ms - scope.sent_ms > RENEW_MS:
            yield self._refill(scope, now_ms)

    def _refill(self, scope: Scope, now_ms: int) -> wire.LeaseRequest:
        if scope.lease is NO_LEASE:
            scope.use(self._open(scope, now_ms))
        scope.measure(now_ms)
        scope.asked = True
        scope.idle_since_ms = now_ms
        lease = scope.lease
        return _request(scope, lease, min(max(lease.used + scope.target, lease.granted), MOST))

    def _give_back(self, scope: Scope, now_ms: int) -> None:
        """Nothing is held: the lease ends here. It is taken out of use before the message goes out."""
        scope.measure(now_ms)
        scope.largest = 0
        scope.lease.grant(scope.lease.spent)
        self._retire(scope)

    def _ahead(self, scope: Scope, lease: Lease, now_ms: int) -> wire.LeaseRequest:
        scope.next_lease = self._open(scope, now_ms, (lease.window_ms or 0) + WINDOW_MS)
        return _request(scope, scope.next_lease, scope.target)

    def _ending(self, scope: Scope, lease: Lease) -> wire.LeaseRequest:
        lease.seq += 1
        return wire.LeaseRequest(scope.name, scope.kind, lease.id, lease.seq, lease.spent, 0, lease.spent, close=True)

    def reports(self, now_ms: int) -> list[wire.LeaseRequest]:
        """What money was spent that the control plane does not know of yet. It has to, before rows of it are uploaded:
        a lease that is lost is cut to what was told about it."""
        money = [scope for scope in self.scopes.values() if scope.kind == "money_nanos"]
        found = [self._refill(scope, now_ms) for scope in money if scope.lease.told < scope.lease.spent]
        behind = [(scope, lease) for scope, lease in self.retired.values() if lease.told < lease.spent]
        return found + [self._report(scope, lease) for scope, lease in behind]

    def _report(self, scope: Scope, lease: Lease) -> wire.LeaseRequest:
        """Of a lease that may be closed and forgotten already only its end is told: anything else would open it."""
        return _request(scope, lease, lease.used) if lease.held else self._ending(scope, lease)

    def close_all(self) -> None:
        """Give everything back at the end of the process; the next messages say so, and open nothing new."""
        self.due.clear()
        for scope in self.scopes.values():
            scope.next_lease = None
            self._retire(scope)

    # --- answers ------------------------------------------------------------------------------------------------

    def apply(self, sent: Sequence[wire.LeaseRequest], reply: wire.LeaseReply, now_ms: int) -> bool:
        """Take over what was granted. Only answers to leases that are still in use count. False when a message has no
        answer and is to be repeated."""
        self.away = False
        answered = {answer.lease_id for answer in reply.leases}
        if unanswered := [request for request in sent if request.lease_id not in answered]:
            self._repeat(unanswered)
            self.nudge()
        for request in sent:
            if request.lease_id not in answered:
                continue
            if (scope := self.scopes.get((request.scope, request.kind))) is not None:
                scope.asked = False
                if scope.lease.id == request.lease_id:
                    scope.lease.told = max(scope.lease.told, request.spent)
            if (behind := self.retired.get(request.lease_id)) is not None:
                behind[1].told = max(behind[1].told, request.spent)
            if request.close and (ended := self.retired.pop(request.lease_id, None)) is not None:
                self.closed(ended[1])
        asked = {request.lease_id: request.ceiling for request in sent if not request.close}
        for answer in reply.leases:
            scope = self.scopes.get((answer.scope, answer.kind))
            if scope is not None and answer.lease_id in asked:
                self._take_over(scope, answer, asked[answer.lease_id], now_ms)
        return not unanswered

    def _take_over(self, scope: Scope, answer: wire.Lease, asked: int, now_ms: int) -> None:
        for lease in (scope.lease, scope.next_lease):
            if lease is None or lease.id != answer.lease_id:
                continue
            # More than was asked can only be an answer to an older message, from before something was given back.
            lease.grant(max(min(answer.granted, asked), 0))
            lease.expires_ms = answer.expires_at_ms
            self.next_expiry_ms = min(self.next_expiry_ms, lease.expires_ms)
            if lease is not scope.lease:
                continue
            scope.refused = False
            if answer.retry_after_ms is not None:
                scope.retry_at_ms = now_ms + answer.retry_after_ms
            elif lease.free < scope.largest:
                self._ask(scope)  # others were faster; the next answer helps

    def failed(self, sent: Sequence[wire.LeaseRequest], now_ms: int) -> None:
        """The message may or may not have arrived: the totals will be repeated."""
        if not self.away:
            self.away, self.away_since_ms = True, now_ms
        self._repeat(sent)

    def _repeat(self, sent: Sequence[wire.LeaseRequest]) -> None:
        for request in sent:
            scope = self._unanswered(request)
            if scope is not None and not request.close:
                self.due.add(scope)

    def _unanswered(self, request: wire.LeaseRequest) -> Scope | None:
        """The scope of a message that had no effect. A lease that was opened ahead ends with it: then None."""
        scope = self.scopes.get((request.scope, request.kind))
        if scope is None:
            return None
        scope.asked = False
        if scope.next_lease is not None and scope.next_lease.id == request.lease_id:
            scope.next_lease = None
            return None
        return scope

    def refused(self, request: wire.LeaseRequest, now_ms: int) -> None:
        """The control plane will never take the message: its lease ends here, and for a while no other is asked for."""
        ended = self.retired.pop(request.lease_id, None)
        if ended is not None:
            self.closed(ended[1])
        scope = self._unanswered(request)
        if scope is not None and scope.lease.id == request.lease_id:
            scope.refused, scope.retry_at_ms = True, now_ms + REFUSED_MS
            scope.lease.grant(scope.lease.used)
            self._retire(scope)


def _request(scope: Scope, lease: Lease, ceiling: int) -> wire.LeaseRequest:
    lease.seq += 1
    return wire.LeaseRequest(
        scope.name, scope.kind, lease.id, lease.seq, lease.spent, lease.held, ceiling, scope.largest, lease.window_ms
    )
