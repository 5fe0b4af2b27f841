"""Leases in motion: what the lease book wants to say goes to the control plane, what that answers comes back."""

import asyncio
import contextlib
import logging
import time

from gateway.clock import now_ms
from gateway.control import ControlPlane, ControlPlaneAway
from gateway.core import wire
from gateway.core.exchange import Exchange
from gateway.core.lease import Lease, Scope
from gateway.core.policy import Policy
from gateway.core.problems import Rejected
from gateway.journal import LeaseJournal, LeaseSlot

log = logging.getLogger("gateway.leasing")
LEASE_GAP_S = 0.02
RETRY_S = 0.2
SWEEP_S = 1.0
LAST_SEQ = 2**53 - 1


class Leasing:
    """Waits for leases, renews them, closes those that another process has left behind."""

    def __init__(self, policy: Policy, control: ControlPlane, journal: LeaseJournal, wait_s: float) -> None:
        self.policy = policy
        self.control = control
        self.journal = journal
        self._wait_s = wait_s
        self._left_behind = [
            wire.LeaseRequest(slot.scope, slot.kind, slot.lease_id, LAST_SEQ, at_risk, 0, at_risk, close=True)
            for slot, at_risk in journal.left_behind
        ]
        self._nudged = asyncio.Event()
        self._answered: asyncio.Future[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        book = policy.book
        book.nudge = self._nudged.set
        book.opened = self._journal_lease
        book.closed = lambda lease: journal.close(lease.id)

    async def reserve(self, exchange: Exchange) -> None:
        """Hold the worst case, waiting for a lease where one may come. Raises Rejected."""
        policy = self.policy
        deadline_s = time.monotonic() + self._wait_s
        short = policy.reserve(exchange, now_ms()) if exchange.plan else None
        while short is not None:
            policy.refuse_short(short, now_ms())
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise Rejected("budget_unavailable", retry_after_s=1)
            await self._next_answer(left_s)
            short = policy.reserve(exchange, now_ms())

    async def _next_answer(self, timeout_s: float) -> None:
        if self._answered is None:
            self._answered = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._answered], timeout=timeout_s)

    async def run(self) -> None:
        await self._close_left_behind()
        swept_s = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), SWEEP_S)
            sweep = time.monotonic() - swept_s >= SWEEP_S
            if sweep:
                swept_s = time.monotonic()
            await self._exchange_leases(sweep)
            await asyncio.sleep(LEASE_GAP_S)

    async def _exchange_leases(self, sweep: bool) -> None:
        self._nudged.clear()
        messages = self.policy.book.messages(now_ms(), sweep)
        if not messages:
            return
        try:
            await self._tell(messages)
        except ControlPlaneAway as error:
            log.warning("leases: %s", error)
            self._later = asyncio.get_running_loop().call_later(RETRY_S, self._nudged.set)
        answered, self._answered = self._answered, None
        if answered is not None and not answered.done():
            answered.set_result(None)

    async def _tell(self, messages: list[wire.LeaseRequest]) -> None:
        try:
            reply = await self.control.lease(messages)
        except ControlPlaneAway:
            self.policy.book.failed(messages, now_ms())
            raise
        self.policy.book.apply(messages, reply, now_ms())

    async def upload(self, batch_id: str, rows: int, data: bytes) -> None:
        """Rows go after the totals that they add up to: see ``LeaseBook.reports``."""
        if self._left_behind:
            raise ControlPlaneAway("the leases of the process before this one are not closed yet")
        messages = self.policy.book.reports(now_ms())
        if messages:
            await self._tell(messages)
        await self.control.upload(batch_id, rows, data)

    async def _close_left_behind(self) -> None:
        """Close the leases of a process that was killed with exactly what it spent or had in flight."""
        while self._left_behind:
            try:
                await self.control.lease(self._left_behind)
            except ControlPlaneAway:
                await asyncio.sleep(SWEEP_S)
                continue
            for request in self._left_behind:
                self.journal.close(request.lease_id)
            self._left_behind = []

    def _journal_lease(self, scope: Scope, lease: Lease) -> None:
        if scope.kind == "money_nanos":
            lease.mark = self.journal.open(LeaseSlot(scope.name, scope.kind, lease.id))

    async def close(self) -> None:
        """Give everything back; what cannot be told now is in the journal."""
        self.policy.book.close_all()
        await self._exchange_leases(sweep=True)
