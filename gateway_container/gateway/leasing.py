"""Leases in motion: what the lease book wants to say goes to the control plane, what that answers comes back."""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Sequence

from gateway.clock import now_ms
from gateway.control import ControlPlane, ControlPlaneAway, MessageRefused
from gateway.core import wire
from gateway.core.exchange import Exchange
from gateway.core.lease import MOST, Lease, Scope
from gateway.core.policy import Policy
from gateway.core.problems import Rejected
from gateway.journal import LeaseJournal, LeaseSlot

log = logging.getLogger("gateway.leasing")
LEASE_GAP_S = 0.02
RETRY_S = 0.2
SWEEP_S = 1.0
BATCH = 100  # messages that the control plane takes at once
LAST_SEQ = 2**53 - 1


class Leasing:
    """Waits for leases, renews them, closes those that another process has left behind."""

    def __init__(self, policy: Policy, control: ControlPlane, journal: LeaseJournal, wait_s: float) -> None:
        self.policy = policy
        self.control = control
        self.journal = journal
        self._wait_s = wait_s
        self._left_behind = {slot.lease_id: _closing(slot, at_risk) for slot, at_risk in journal.left_behind}
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
        messages += itertools.islice(self._left_behind.values(), BATCH)  # some at a time: those who live do not wait
        if not messages:
            return
        try:
            await self._tell(messages)
        except ControlPlaneAway as error:
            log.warning("leases: %s", error)
            self._later = asyncio.get_running_loop().call_later(RETRY_S, self._nudged.set)
        else:
            if self._left_behind:
                self._nudged.set()
        answered, self._answered = self._answered, None
        if answered is not None and not answered.done():
            answered.set_result(None)

    async def _tell(self, messages: Sequence[wire.LeaseRequest]) -> bool:
        """In batches, each of which counts by itself. False when a message is to be repeated."""
        heard = True
        for at in range(0, len(messages), BATCH):
            try:
                heard &= await self._tell_batch(messages[at : at + BATCH])
            except ControlPlaneAway:
                self.policy.book.failed(messages[at:], now_ms())
                raise
        return heard

    async def _tell_batch(self, batch: Sequence[wire.LeaseRequest]) -> bool:
        """One that is refused is halved until the message that is to blame stands alone."""
        try:
            reply = await self.control.lease(batch)
        except MessageRefused as error:
            if len(batch) == 1:
                self._drop(batch[0], error)
                return True
            half = len(batch) // 2
            return await self._tell_batch(batch[:half]) & await self._tell_batch(batch[half:])
        for lease in reply.leases:
            self._end_left_behind(lease.lease_id)
        return self.policy.book.apply(batch, reply, now_ms())

    def _drop(self, message: wire.LeaseRequest, error: MessageRefused) -> None:
        log.error("lease %s of %s (%s): %s", message.lease_id, message.scope, message.kind, error)
        self.policy.book.refused(message, now_ms())
        self._end_left_behind(message.lease_id)

    async def upload(self, batch_id: str, rows: int, data: bytes) -> None:
        """Rows go after the totals that they add up to: see ``LeaseBook.reports``."""
        if self._left_behind:
            raise ControlPlaneAway("the leases of the process before this one are not closed yet")
        messages = self.policy.book.reports(now_ms())
        if messages and not await self._tell(messages):
            raise ControlPlaneAway("not all that was spent could be told yet")
        await self.control.upload(batch_id, rows, data)

    def _end_left_behind(self, lease_id: str) -> None:
        """A lease of a process that was killed is closed, with exactly what it spent or had in flight."""
        if self._left_behind.pop(lease_id, None) is not None:
            self.journal.close(lease_id)

    def _journal_lease(self, scope: Scope, lease: Lease) -> None:
        if scope.kind == "money_nanos":
            lease.mark = self.journal.open(LeaseSlot(scope.name, scope.kind, lease.id))

    async def close(self) -> None:
        """Give everything back; what cannot be told now is in the journal."""
        self.policy.book.close_all()
        await self._exchange_leases(sweep=True)


def _closing(slot: LeaseSlot, at_risk: int) -> wire.LeaseRequest:
    at_risk = min(max(at_risk, 0), MOST)
    return wire.LeaseRequest(slot.scope, slot.kind, slot.lease_id, LAST_SEQ, at_risk, 0, at_risk, close=True)
