"""Messages about leases on their way: no message stops those of others, however many there are."""

import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from gateway.clock import now_ms
from gateway.control import ControlPlane, ControlPlaneAway
from gateway.core.lease import Scope
from gateway.core.policy import Policy
from gateway.core.problems import Rejected
from gateway.journal import LeaseJournal, LeaseSlot
from gateway.leasing import BATCH, Leasing
from gateway.standin import StandIn

MANY = 650
LIMIT = 10**6
Open = Callable[[], Leasing]


class Wire(httpx.ASGITransport):
    """The stand-in control plane, with a memory of how many messages came at once, and how it answered."""

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__(stand_in.app())
        self.batches: list[tuple[int, int]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if request.url.path == "/gateway/leases":
            self.batches.append((request.content.count(b'"lease_id"'), response.status_code))
        return response


@pytest.fixture
def stand_in() -> StandIn:
    stand_in = StandIn({"version": 1, "keys": [], "endpoints": []}, "token")
    stand_in.limits.update({(f"key:{number}", "money_nanos"): LIMIT for number in range(MANY)})
    return stand_in


@pytest.fixture
def wire(stand_in: StandIn) -> Wire:
    return Wire(stand_in)


@pytest.fixture
async def start(wire: Wire, tmp_path: Path) -> AsyncIterator[Open]:
    """``start()``: the leasing of a gateway process; again, that of the one after it."""
    control = ControlPlane("http://control", "token", "pod-0", wire)
    boots: list[str] = []

    def leasing() -> Leasing:
        boots.append(f"b{len(boots)}")
        return Leasing(Policy("pod-0", boots[-1]), control, LeaseJournal(tmp_path / "leases"), 1.0)

    yield leasing
    await control.close()


def ask(leasing: Leasing, name: str, amount: int = 10) -> Scope:
    """Hold an amount, or ask for a lease where there is none."""
    scope = leasing.policy.book.scope(name, "money_nanos", LIMIT)
    leasing.policy.book.reserve((scope,), (1, 1, amount), now_ms())
    return scope


async def test_more_limits_than_one_batch_takes_are_all_leased(start: Open, wire: Wire) -> None:
    leasing = start()
    scopes = [ask(leasing, f"key:{number}") for number in range(MANY)]
    await leasing._exchange_leases(sweep=True)
    assert all(scope.lease.free >= 10 for scope in scopes)
    assert sum(count for count, _ in wire.batches) == MANY
    assert {(count <= BATCH, status) for count, status in wire.batches} == {(True, 200)}


async def test_one_bad_message_stops_nobody_else(start: Open, wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    leasing = start()
    scopes = [ask(leasing, f"key:{number}") for number in range(150)]
    bad = ask(leasing, "key:not a name")
    with caplog.at_level(logging.ERROR, "gateway.leasing"):
        await leasing._exchange_leases(sweep=True)
    assert all(scope.lease.free >= 10 for scope in scopes)
    assert [record.args[1] for record in caplog.records] == ["key:not a name"]  # type: ignore[index]
    with pytest.raises(Rejected) as refusal:
        leasing.policy.refuse_short(bad, now_ms())
    assert (refusal.value.code, refusal.value.retry_after_s > 0) == ("budget_unavailable", True)


async def test_a_refused_limit_is_let_go_and_not_asked_for_by_each_request(start: Open, wire: Wire) -> None:
    leasing = start()
    for _ in range(3):
        ask(leasing, "key:not a name")
        await leasing._exchange_leases(sweep=True)
    assert wire.batches == [(1, 422), (1, 422)], "the opening, and the end of what may have been opened"
    assert not leasing.policy.book.retired and not leasing.journal._used


async def test_a_lease_whose_report_is_refused_is_closed_when_nothing_is_held(start: Open, stand_in: StandIn) -> None:
    leasing = start()
    book, scope = leasing.policy.book, ask(leasing, "key:1")
    await leasing._exchange_leases(sweep=True)
    held = [book.reserve((scope,), (1, 1, 10), now_ms()) for _ in range(2)]
    leases = [lease for found in held if isinstance(found, list) for lease in found]
    leases[0].settle(10, 3)
    [report] = book.reports(now_ms())
    book.refused(report, now_ms())
    leases[1].settle(10, 4)
    await leasing._exchange_leases(sweep=True)
    assert stand_in.escrow.committed[("key:1", "money_nanos", None)] == 7 and not book.retired


async def crash(start: Open, leasing: Leasing, at_risk: dict[str, int]) -> Leasing:
    """Leases of these scopes are open with something at risk; then the process is gone, and the next one begins."""
    for name in at_risk:
        ask(leasing, name)
    await leasing._exchange_leases(sweep=True)
    for name, amount in at_risk.items():
        ask(leasing, name, amount)
    return start()


async def test_leases_left_behind_are_closed_however_many(start: Open, wire: Wire, stand_in: StandIn) -> None:
    leasing = await crash(start, start(), {f"key:{number}": 10 for number in range(MANY)})
    with pytest.raises(ControlPlaneAway, match="not closed yet"):
        await leasing.upload("b", 1, b"rows")
    mine = ask(leasing, "key:0")
    await leasing._exchange_leases(sweep=True)
    assert mine.lease.free >= 10, "those who live do not wait for the closing"
    for _ in range(MANY // BATCH + 1):
        await leasing._exchange_leases(sweep=False)
    assert all(stand_in.escrow.committed[(f"key:{number}", "money_nanos", None)] == 10 for number in range(1, MANY))
    await leasing.upload("b", 1, b"rows")
    assert set(leasing.journal._used) == {mine.lease.id}
    assert {status for _, status in wire.batches} == {200}


async def test_a_lease_left_behind_that_nobody_takes_is_dropped(start: Open, tmp_path: Path) -> None:
    journal = LeaseJournal(tmp_path / "leases")
    for name in ("key:not a name", "key:1"):
        journal.open(LeaseSlot(name, "money_nanos", f"pod-0.x.{len(name)}"))
    leasing = start()
    await leasing._exchange_leases(sweep=True)
    await leasing.upload("b", 1, b"rows")
    assert not leasing.journal._used


async def test_what_a_crash_left_in_the_journal_stays_there_while_the_control_plane_is_away(
    start: Open, stand_in: StandIn
) -> None:
    leasing = await crash(start, start(), {"key:1": 10})
    stand_in.away = True
    await leasing._exchange_leases(sweep=True)
    assert len(leasing.journal._used) == 1
    stand_in.away = False
    await leasing._exchange_leases(sweep=True)
    assert stand_in.escrow.committed[("key:1", "money_nanos", None)] == 10 and not leasing.journal._used


async def test_no_rows_are_uploaded_before_all_of_their_totals_were_answered(start: Open, stand_in: StandIn) -> None:
    leasing = start()
    for number in range(2):
        scope = ask(leasing, f"key:{number}")
        await leasing._exchange_leases(sweep=False)
        leases = leasing.policy.book.reserve((scope,), (1, 1, 10), now_ms())
        assert isinstance(leases, list)
        leases[0].settle(10, 7)
    handle = stand_in.escrow.handle
    stand_in.escrow.handle = lambda requests, at_ms: handle(list(requests)[:1], at_ms)  # type: ignore[method-assign]
    with pytest.raises(ControlPlaneAway, match="not all"):
        await leasing.upload("b", 1, b"rows")
    assert not stand_in.batches
    await leasing.upload("b", 1, b"rows")
    assert stand_in.batches


async def test_a_message_without_an_answer_is_sent_again(start: Open, stand_in: StandIn) -> None:
    """The control plane answers what it gets to in its time."""
    handle = stand_in.escrow.handle
    stand_in.escrow.handle = lambda requests, at_ms: handle(list(requests)[:40], at_ms)  # type: ignore[method-assign]
    leasing = start()
    scopes = [ask(leasing, f"key:{number}") for number in range(100)]
    for round_ in range(3):
        await leasing._exchange_leases(sweep=False)
        assert sum(scope.lease.free >= 10 for scope in scopes) == min((round_ + 1) * 40, 100)
