"""Leases on plain data: whatever gateways do, in whatever order it arrives, no budget is passed."""

from dataclasses import dataclass, field

from foundry_core.ids import new_id
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from functions.app.services.leases import (
    CLOSED_KEPT_MS,
    MAX_CLOSED,
    MAX_OPEN,
    QUARANTINE_MS,
    apply,
    forget,
    in_time,
    share,
)
from functions.app.store.leases import Counter, keep
from functions.app.store.table import BudgetItem
from functions.app.wire import Lease, LeaseRequest

NOW_MS = 1_800_000_000_000
UNDERWAY_MS = 60_000  # twice what an API takes at most


def ask(lease_id: str, seq: int, **fields: object) -> LeaseRequest:
    return LeaseRequest.model_validate(
        {"scope": "key:k", "kind": "money_nanos", "lease_id": lease_id, "seq": seq, **fields}
    )


def give(counter: Counter, request: LeaseRequest, limit: int | None, at_ms: int = NOW_MS) -> Lease:
    return apply(counter, request.lease_id, request, limit, at_ms)


def test_the_first_gateway_gets_at_most_half() -> None:
    counter = Counter()
    assert give(counter, ask("a", 1, ceiling=1000), 100).granted == 50
    assert give(counter, ask("b", 1, ceiling=10), 100).granted == 10
    assert counter.committed == 60


def test_what_is_needed_is_given_while_there_is_enough() -> None:
    counter = Counter()
    assert give(counter, ask("a", 1, ceiling=90, needed=80), 100).granted == 80
    refused = give(counter, ask("b", 1, ceiling=90, needed=30), 100)
    assert (refused.granted, refused.retry_after_ms, counter.committed) == (0, 250, 80)


def test_lowering_the_ceiling_gives_back_but_not_what_is_in_flight() -> None:
    counter = Counter()
    give(counter, ask("a", 1, ceiling=50), 100)
    assert give(counter, ask("a", 2, spent=10, held=20, ceiling=0), 100).granted == 30
    assert counter.committed == 30


def test_a_repeated_or_late_message_changes_nothing() -> None:
    counter = Counter()
    give(counter, ask("a", 1, ceiling=10), 100)
    newer = give(counter, ask("a", 3, spent=5, ceiling=40), 100)
    for late in (ask("a", 3, spent=5, ceiling=40), ask("a", 2, ceiling=0)):
        assert give(counter, late, 100).granted == newer.granted
    assert counter.committed == newer.granted


def test_closing_returns_the_rest_once_and_for_all() -> None:
    counter = Counter()
    give(counter, ask("a", 1, ceiling=50), 100)
    for _ in range(2):
        assert give(counter, ask("a", 2, spent=7, close=True), 100).granted == 7
        assert counter.committed == 7
    assert give(counter, ask("a", 3, ceiling=50), 100).granted == 7  # a message that was overtaken opens nothing
    assert counter.committed == 7


def test_closing_an_unknown_lease_adds_nothing() -> None:
    counter = Counter()
    give(counter, ask("a", 1, spent=7, close=True), 100)
    assert counter == Counter()


def test_money_of_a_killed_gateway_stays_committed_until_it_closes() -> None:
    """Its journal says what it spent; a day later it is still known."""
    counter = Counter()
    give(counter, ask("a", 1, ceiling=50), 100)
    later_ms = NOW_MS + 24 * 3_600_000
    assert give(counter, ask("b", 1, ceiling=100), 100, later_ms).granted == 25
    give(counter, ask("a", 9, spent=11, close=True), 100, later_ms)
    assert counter.committed == 11 + 25


def test_the_slice_of_a_gateway_that_never_comes_back_returns_after_quarantine() -> None:
    counter = Counter()
    give(counter, ask("a", 1, ceiling=80, needed=80), 100)
    give(counter, ask("a", 2, spent=11, held=6, ceiling=80), 100)
    expired_ms = NOW_MS + 60_000
    assert give(counter, ask("b", 1, ceiling=60, needed=60), 100, expired_ms + QUARANTINE_MS).granted == 0
    later_ms = expired_ms + QUARANTINE_MS + 1
    assert give(counter, ask("b", 2, ceiling=60, needed=60), 100, later_ms).granted == 60
    assert counter.committed == 11 + 6 + 60


def test_a_gateway_that_comes_back_after_quarantine_still_puts_the_counter_right() -> None:
    counter = Counter()
    give(counter, ask("a", 1, ceiling=50), 100)
    give(counter, ask("a", 2, spent=5, ceiling=50), 100)
    later_ms = NOW_MS + QUARANTINE_MS + 70_000
    give(counter, ask("b", 1, ceiling=1), 100, later_ms)
    assert counter.committed == 5 + 1
    for _ in range(2):
        give(counter, ask("a", 9, spent=20, close=True), 100, later_ms)
        assert counter.committed == 20 + 1


def test_an_order_to_wake_is_given_to_one_and_returns_when_it_is_gone() -> None:
    counter = Counter()

    def wake(lease_id: str, at_ms: int) -> int:
        request = ask(lease_id, 1, scope="deployment:d", kind="wake", ceiling=1, needed=1)
        return apply(counter, lease_id, request, 1, at_ms).granted

    assert [wake("a", NOW_MS), wake("b", NOW_MS + 1)] == [1, 0]
    assert wake("c", NOW_MS + 60_001) == 1


def test_records_do_not_pile_up() -> None:
    counter = Counter()
    for number in range(MAX_OPEN):
        give(counter, ask(f"l{number}", 1, ceiling=1), None)
    refused = give(counter, ask("one-more", 1, ceiling=1), None)
    assert refused.granted == 0 and refused.retry_after_ms
    for number in range(MAX_OPEN):
        give(counter, ask(f"l{number}", 2, spent=1, close=True), None)
    assert len(counter.leases) == MAX_CLOSED
    forget(counter, "money_nanos", NOW_MS + CLOSED_KEPT_MS + 1)
    assert counter == Counter(committed=MAX_OPEN)


def test_the_longest_leases_fit_an_item_of_the_table() -> None:
    """400 KB at most, of which DynamoDB counts the names and the values of all attributes."""
    counter, gateway = Counter(), new_id("gw")
    for number in range(MAX_CLOSED + MAX_OPEN):
        message = ask(f"{number:0128}", 2**53 - 1, spent=10**18, held=10**18, ceiling=10**18)
        lease_id = f"{gateway}/{message.lease_id}"
        apply(counter, lease_id, message, None, NOW_MS)
        if number < MAX_CLOSED:
            apply(counter, lease_id, message.model_copy(update={"close": True}), None, NOW_MS)
    assert len(counter.leases) == MAX_CLOSED + MAX_OPEN
    item = BudgetItem(f"BUDGET#endpoint:{'e' * 200}#money_nanos", f"WINDOW#{NOW_MS}", expires_at=NOW_MS)
    keep(item, counter)
    sizes = [len(name) + len(value) for name, typed in item.serialize().items() for value in typed.values()]
    assert sum(sizes) < 400 * 1024 - 2048, "some is left for attributes to come"


def test_closed_leases_take_no_place_of_open_ones() -> None:
    counter = Counter()
    for number in range(MAX_OPEN):
        give(counter, ask(f"l{number}", 1, ceiling=1), None)
    give(counter, ask("l0", 2, close=True), None)
    assert give(counter, ask("one-more", 1, ceiling=1), None).granted == 1


def test_a_budget_that_is_given_back_when_idle_never_starves() -> None:
    """Many gateways with little traffic: each opens a lease, spends, is idle and closes it, again and again."""
    counter, spent = Counter(), 0
    for second in range(0, 2 * 3600, 5):
        for gateway in range(3):
            lease_id, at_ms = f"{gateway}.{second}", NOW_MS + second * 1000
            assert give(counter, ask(lease_id, 1, ceiling=8, needed=2), 10**9, at_ms).granted == 8
            give(counter, ask(lease_id, 2, spent=1, close=True), 10**9, at_ms + 4000)
            spent += 1
        assert counter.committed == spent and len(counter.leases) < 100


@given(st.integers(-10, 100), st.integers(1, 200), st.integers(-50, 200))
def test_a_share_is_never_more_than_is_left(left: int, wanted: int, needed: int) -> None:
    given_ = share(left, wanted, needed)
    assert 0 <= given_ <= max(0, left) and given_ <= wanted
    if wanted <= left // 2 or 0 < needed <= min(left, wanted):
        assert given_ > 0


@given(st.integers(NOW_MS - 10**6, NOW_MS + 10**6))
def test_only_minutes_that_can_be_spent_in(window_ms: int) -> None:
    request = ask("a", 1, kind="tokens", window_ms=window_ms)
    expected = window_ms % 60_000 == 0 and NOW_MS - 120_000 < window_ms < NOW_MS + 120_000
    assert in_time(request, NOW_MS) is expected
    assert not in_time(ask("a", 1, kind="tokens"), NOW_MS)


@dataclass
class Pod:
    """A gateway that keeps the contract: it holds and spends no more than it was granted, and tells what it spent
    before it uploads the rows."""

    number: int
    lease_id: str = ""
    seq: int = 0
    granted: int = 0
    spent: int = 0
    held: int = 0
    rows: int = 0  # spent, not uploaded yet
    lost: list[tuple[str, int, int]] = field(default_factory=list)  # by a crash: lease, what it spent, its rows

    @property
    def room(self) -> int:
        return self.granted - self.spent - self.held


class Budget(RuleBasedStateMachine):
    """Gateways spend, crash, come back within a day or never; messages get lost, doubled and overtaken."""

    @initialize(limit=st.sampled_from([0, 1, 50, 1000]))
    def start(self, limit: int) -> None:
        self.limit, self.counter, self.at_ms, self.metered = limit, Counter(), NOW_MS, 0
        self.pods = [Pod(number) for number in range(2)]
        self.flying: list[tuple[int, LeaseRequest]] = []
        self.leases = 0

    def send(self, request: LeaseRequest) -> Lease:
        self.flying.append((self.at_ms, request))
        return apply(self.counter, request.lease_id, request, self.limit, self.at_ms)

    def tell(self, pod: Pod, more: int = 0, needed: int = 0) -> Lease:
        if not pod.lease_id:
            self.leases += 1
            pod.lease_id, pod.seq = f"{pod.number}.{self.leases}", 0
        pod.seq += 1
        ceiling = max(pod.spent + pod.held, pod.granted + more)
        fields = {"spent": pod.spent, "held": pod.held, "ceiling": ceiling, "needed": needed}
        return self.send(ask(pod.lease_id, pod.seq, **fields))

    @rule(who=st.integers(0, 1), more=st.sampled_from([0, 1, 10, 300]), needed=st.sampled_from([0, 5, 100]),
          heard=st.sampled_from([True, True, True, False]))  # fmt: skip
    def lease(self, who: int, more: int, needed: int, heard: bool) -> None:
        answer = self.tell(self.pods[who], more, needed)
        if heard:  # an answer that is lost leaves the gateway with what it had
            self.pods[who].granted = answer.granted

    @rule(who=st.integers(0, 1), parts=st.integers(1, 3))
    def hold(self, who: int, parts: int) -> None:
        pod = self.pods[who]
        pod.held += max(0, pod.room) // parts

    @rule(who=st.integers(0, 1), used=st.integers(0, 100))
    def settle(self, who: int, used: int) -> None:
        pod = self.pods[who]
        used = min(used, pod.held)
        pod.held, pod.spent, pod.rows = 0, pod.spent + used, pod.rows + used

    @rule(who=st.integers(0, 1))
    def upload(self, who: int) -> None:
        pod = self.pods[who]
        if pod.rows:
            self.tell(pod)
            self.metered, pod.rows = self.metered + pod.rows, 0

    @rule(who=st.integers(0, 1))
    def give_back(self, who: int) -> None:
        pod = self.pods[who]
        if pod.lease_id:
            pod.granted = pod.spent + pod.held  # no longer spendable, whether or not the message arrives
            self.tell(pod)

    @rule(who=st.integers(0, 1))
    def crash(self, who: int) -> None:
        """What was in flight counts as spent: the journal cannot know better."""
        pod = self.pods[who]
        lost = [(pod.lease_id, pod.spent + pod.held, pod.rows + pod.held)] if pod.lease_id else []
        self.pods[who] = Pod(who, lost=[*pod.lost, *lost])

    @rule(who=st.integers(0, 1))
    def come_back(self, who: int) -> None:
        pod = self.pods[who]
        for lease_id, spent, rows in pod.lost:
            self.send(ask(lease_id, 10**6, spent=spent, close=True))
            self.metered += rows
        pod.lost.clear()

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """An old message arrives again: its answer is of no use to anybody."""
        _, request = data.draw(st.sampled_from(self.flying))
        apply(self.counter, request.lease_id, request, self.limit, self.at_ms)

    @rule(ms=st.integers(0, 600_000))
    def wait(self, ms: int) -> None:
        """A message is on its way for as long as an HTTP request lasts, and well within the time that the records of
        closed leases are kept for."""
        self.at_ms += ms
        self.flying = [(at_ms, request) for at_ms, request in self.flying if at_ms > self.at_ms - UNDERWAY_MS]

    @rule()
    def a_day_passes(self) -> None:
        """Gateways that live renew their leases; those that were lost before it never come back, nor do their rows."""
        self.flying.clear()
        for pod in self.pods:
            pod.lost.clear()
        for _ in range(26):
            self.at_ms += 3_600_000
            for pod in self.pods:
                self.tell(pod)
        open_ = sum(record.granted for record in self.counter.leases.values() if not record.closed)
        assert open_ <= self.told_of_the_lost() + sum(max(pod.granted, pod.spent + pod.held) for pod in self.pods)

    def told_of_the_lost(self) -> int:
        living = {pod.lease_id for pod in self.pods}
        records = self.counter.leases.items()
        return sum(r.spent + r.held for lease_id, r in records if lease_id not in living and not r.closed)

    @invariant()
    def spend_stays_within_the_budget(self) -> None:
        in_pods = sum(pod.rows + pod.held + sum(rows for *_, rows in pod.lost) for pod in self.pods)
        assert self.metered + in_pods <= self.counter.committed <= self.limit

    @invariant()
    def the_counter_adds_up(self) -> None:
        assert self.counter.committed >= sum(record.granted for record in self.counter.leases.values())


TestBudget = Budget.TestCase
TestBudget.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
