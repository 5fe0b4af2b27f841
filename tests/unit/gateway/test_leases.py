"""Spend never exceeds the budget: gateways, a control plane, and a network that loses, repeats and delays messages."""

from dataclasses import dataclass, field

from gateway.core.escrow import MONEY_LIFE_MS, QUARANTINE_MS, Escrow
from gateway.core.lease import Lease, Scope
from gateway.core.limit import LeaseBook
from gateway.core.wire import LeaseReply, LeaseRequest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

SCOPE = ("key:k", "money_nanos")
FATES = ["ok", "lost", "reply lost", "late", "twice", "in part", "refused"]
START_MS = 1_700_000_000_000


@dataclass
class Pod:
    """A gateway as far as budgets go, with the journal that survives its death."""

    number: int
    boot: int = 0
    book: LeaseBook = field(init=False)
    scope: Scope = field(init=False)
    holds: list[tuple[Lease, int]] = field(default_factory=list)
    rows: int = 0  # spent, not uploaded yet
    journal: dict[str, memoryview] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.boot += 1
        self.book = LeaseBook(f"pod-{self.number}", str(self.boot))
        self.book.opened = self._opened
        self.book.closed = lambda lease: self.journal.pop(lease.id, None)
        self.scope = self.book.scope(*SCOPE, 10**9)

    def _opened(self, scope: Scope, lease: Lease) -> None:
        lease.mark = self.journal[lease.id] = memoryview(bytearray(8)).cast("q")


@dataclass
class Lost:
    """What a killed gateway leaves on its disk."""

    journal: dict[str, memoryview]
    rows: int


class Budgets(RuleBasedStateMachine):
    """Any interleaving of requests, messages and crashes. A gateway that crashed comes back within a day or never."""

    @initialize(budget=st.integers(0, 5000), pods=st.integers(1, 4))
    def begin(self, budget: int, pods: int) -> None:
        self.budget = budget
        self.now_ms = START_MS
        self.escrow = Escrow({SCOPE: budget})
        self.pods = [Pod(number) for number in range(pods)]
        self.metered = 0
        self.lost: list[Lost] = []
        self.late: list[list[LeaseRequest]] = []

    @rule(pod=st.integers(0, 3), amount=st.integers(1, 400))
    def request(self, pod: int, amount: int) -> None:
        chosen = self.pods[pod % len(self.pods)]
        leases = chosen.book.reserve((chosen.scope,), (1, 1, amount), self.now_ms)
        if isinstance(leases, list):
            chosen.holds.append((leases[0], amount))

    @rule(pod=st.integers(0, 3), share=st.floats(0, 1))
    def settle(self, pod: int, share: float) -> None:
        chosen = self.pods[pod % len(self.pods)]
        if chosen.holds:
            lease, amount = chosen.holds.pop()
            used = int(amount * share)
            lease.settle(amount, used)
            chosen.rows += used

    @rule(pod=st.integers(0, 3), fate=st.sampled_from(FATES), sweep=st.booleans())
    def exchange(self, pod: int, fate: str, sweep: bool) -> None:
        book = self.pods[pod % len(self.pods)].book
        messages = book.messages(self.now_ms, sweep)
        if not messages:
            return
        if fate == "refused":
            book.refused(messages.pop(), self.now_ms)
        if fate in ("refused", "in part"):
            heard = messages[: len(messages) // 2] if fate == "in part" else messages
            book.apply(messages, self.escrow.handle(heard, self.now_ms), self.now_ms)
            return
        reply: LeaseReply | None = None
        if fate in ("ok", "reply lost", "twice"):
            reply = self.escrow.handle(messages, self.now_ms)
        if fate == "twice":
            reply = self.escrow.handle(messages, self.now_ms)
        if fate == "late":
            self.late.append(messages)
        if reply is None or fate == "reply lost":
            book.failed(messages, self.now_ms)
        else:
            book.apply(messages, reply, self.now_ms)

    @rule(pod=st.integers(0, 3), arrives=st.booleans())
    def upload(self, pod: int, arrives: bool) -> None:
        """As the runtime does it: first the totals, and the rows only when those have arrived."""
        chosen = self.pods[pod % len(self.pods)]
        messages = chosen.book.reports(self.now_ms)
        if messages and not arrives:
            chosen.book.failed(messages, self.now_ms)
            return
        chosen.book.apply(messages, self.escrow.handle(messages, self.now_ms), self.now_ms)
        self.metered, chosen.rows = self.metered + chosen.rows, 0

    @precondition(lambda self: self.late)
    @rule()
    def a_late_message_arrives(self) -> None:
        self.escrow.handle(self.late.pop(0), self.now_ms)

    @rule(seconds=st.integers(0, 90))
    def time_passes(self, seconds: int) -> None:
        self.now_ms += seconds * 1000

    @rule()
    def a_day_passes(self) -> None:
        """Who lives keeps in touch; who was lost before it never comes back, nor do its rows."""
        self.lost.clear()
        self.late.clear()
        for _ in range(26 * 6):
            self.now_ms += 600_000
            for pod in self.pods:
                exchange(pod.book, self.escrow, self.now_ms)

    @rule(pod=st.integers(0, 3), share=st.floats(0, 1))
    def crash(self, pod: int, share: float) -> None:
        """Killed with requests in flight: what the engines did with them is between nothing and everything."""
        chosen = self.pods[pod % len(self.pods)]
        in_flight = sum(int(amount * share) for _, amount in chosen.holds)
        self.lost.append(Lost(dict(chosen.journal), chosen.rows + in_flight))
        chosen.holds.clear()
        chosen.journal.clear()
        chosen.rows = 0
        chosen.start()

    @precondition(lambda self: self.lost)
    @rule()
    def come_back(self) -> None:
        lost = self.lost.pop()
        closings = [
            LeaseRequest(*SCOPE, lease_id, 2**53 - 1, mark[0], 0, mark[0], close=True)
            for lease_id, mark in lost.journal.items()
        ]
        self.escrow.handle(closings, self.now_ms)
        self.metered += lost.rows

    @invariant()
    def never_overspent(self) -> None:
        if hasattr(self, "escrow"):
            held = sum(amount for pod in self.pods for _, amount in pod.holds)
            rows = sum(pod.rows for pod in self.pods) + sum(lost.rows for lost in self.lost)
            assert self.metered + rows + held <= self.budget
            assert self.escrow.committed.get((*SCOPE, None), 0) <= self.budget


TestBudgets = Budgets.TestCase
TestBudgets.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def exchange(book: LeaseBook, escrow: Escrow, now_ms: int, sweep: bool = True) -> int:
    messages = book.messages(now_ms, sweep)
    if messages:
        book.apply(messages, escrow.handle(messages, now_ms), now_ms)
    return len(messages)


def test_a_crashed_gateways_slice_returns_when_it_restarts() -> None:
    escrow, pod = Escrow({SCOPE: 1000}), Pod(1)
    pod.book.reserve((pod.scope,), (1, 1, 100), START_MS)
    exchange(pod.book, escrow, START_MS)
    [lease] = pod.book.reserve((pod.scope,), (1, 1, 100), START_MS)  # type: ignore[misc]
    lease.settle(100, 40)
    pod.book.reserve((pod.scope,), (1, 1, 100), START_MS)
    assert escrow.committed[(*SCOPE, None)] > 140
    [(lease_id, mark)] = pod.journal.items()
    escrow.handle([LeaseRequest(*SCOPE, lease_id, 2**53 - 1, mark[0], 0, mark[0], close=True)], START_MS)
    assert escrow.committed[(*SCOPE, None)] == 140


def test_the_slice_of_a_gateway_that_never_comes_back_returns_but_for_what_it_told() -> None:
    escrow, gone = Escrow({SCOPE: 1000}), Pod(1)
    gone.book.reserve((gone.scope,), (1, 1, 100), START_MS)
    exchange(gone.book, escrow, START_MS)
    [lease] = gone.book.reserve((gone.scope,), (1, 1, 100), START_MS)  # type: ignore[misc]
    lease.settle(100, 40)
    [message] = gone.book.reports(START_MS)
    assert message.spent == 40 and not message.close
    escrow.handle([message], START_MS)
    assert escrow.committed[(*SCOPE, None)] > 40
    later_ms = START_MS + MONEY_LIFE_MS + QUARANTINE_MS + 1
    other = Pod(2)
    other.book.reserve((other.scope,), (1, 1, 960), later_ms)
    exchange(other.book, escrow, later_ms)
    assert isinstance(other.book.reserve((other.scope,), (1, 1, 960), later_ms), list)
    assert escrow.committed[(*SCOPE, None)] == 1000


def test_what_is_known_is_not_reported_again() -> None:
    escrow, pod = Escrow({SCOPE: 1000}), Pod(1)
    pod.book.reserve((pod.scope,), (1, 1, 100), START_MS)
    exchange(pod.book, escrow, START_MS)
    [lease] = pod.book.reserve((pod.scope,), (1, 1, 100), START_MS)  # type: ignore[misc]
    assert pod.book.reports(START_MS) == []
    lease.settle(100, 40)
    messages = pod.book.reports(START_MS)
    pod.book.failed(messages, START_MS)
    messages = pod.book.reports(START_MS)
    pod.book.apply(messages, escrow.handle(messages, START_MS), START_MS)
    assert pod.book.reports(START_MS) == []


def test_the_end_of_a_gateway_opens_no_lease_whatever_was_asked_for_before() -> None:
    escrow, pod = Escrow({SCOPE: 1000}), Pod(1)
    pod.book.reserve((pod.scope,), (1, 1, 100), START_MS)
    exchange(pod.book, escrow, START_MS)
    [lease] = pod.book.reserve((pod.scope,), (1, 1, 100), START_MS)  # type: ignore[misc]
    lease.settle(100, 40)
    pod.book.failed(pod.book.reports(START_MS), START_MS)
    assert pod.book.due, "it is to be repeated"
    pod.book.close_all()
    exchange(pod.book, escrow, START_MS)
    assert escrow.committed[(*SCOPE, None)] == 40 and not pod.book.retired


def test_an_idle_slice_is_given_back() -> None:
    escrow, pod = Escrow({SCOPE: 1000}), Pod(1)
    pod.book.reserve((pod.scope,), (1, 1, 100), START_MS)
    exchange(pod.book, escrow, START_MS)
    [lease] = pod.book.reserve((pod.scope,), (1, 1, 100), START_MS)  # type: ignore[misc]
    lease.settle(100, 30)
    for second in range(1, 12):
        exchange(pod.book, escrow, START_MS + second * 1000)
    assert escrow.committed[(*SCOPE, None)] == 30


def test_at_ten_requests_per_second_the_store_is_written_less_than_once_a_request() -> None:
    limits = {SCOPE: 10**12, ("project:p", "money_nanos"): 10**12, ("endpoint:e", "money_nanos"): 10**12}
    for rate, allowed in ((10, 0.7), (100, 0.1)):
        escrow, book = Escrow(dict(limits)), LeaseBook("pod", "1")
        plan = tuple(book.scope(name, kind, limit) for (name, kind), limit in limits.items())
        served, due = 0, False
        book.nudge = lambda: None
        for tick in range(60 * rate):
            now_ms = START_MS + tick * 1000 // rate
            leases = book.reserve(plan, (1, 1, 500), now_ms)
            if isinstance(leases, list):
                served += 1
                for lease in leases:
                    lease.settle(500, 200)
            due = bool(book.due)
            if due or tick % rate == 0:
                exchange(book, escrow, now_ms, sweep=tick % rate == 0)
            if tick % (5 * rate) == 0 and (messages := book.reports(now_ms)):  # an upload every five seconds
                book.apply(messages, escrow.handle(messages, now_ms), now_ms)
        assert served > 58 * rate
        assert escrow.writes / served <= allowed


def test_a_new_minute_does_not_make_requests_wait() -> None:
    scope_name = ("key:k", "requests")
    escrow, book = Escrow({scope_name: 1000}), LeaseBook("pod", "1")
    plan = (book.scope(*scope_name, 1000),)
    minute = START_MS // 60_000 * 60_000 + 60_000
    waits = 0
    for now_ms in range(minute - 20_000, minute + 20_000, 100):
        waits += not isinstance(book.reserve(plan, (1, 0, 0), now_ms), list)
        exchange(book, escrow, now_ms, sweep=now_ms % 1000 == 0)
    assert waits == 1, "only the very first one"


@given(st.integers(1, 50))
def test_rates_fail_open_within_their_bound_and_money_does_not(bound: int) -> None:
    book = LeaseBook("pod", "1", {"requests": bound, "money_nanos": 0})
    book.away = True
    requests, money = book.scope("key:k", "requests", 1000), book.scope("key:k", "money_nanos", 1000)
    passed = sum(isinstance(book.reserve((requests,), (1, 0, 0), START_MS), list) for _ in range(100))
    assert passed == bound
    assert not isinstance(book.reserve((money,), (1, 0, 1), START_MS), list)


def test_nothing_is_held_when_one_of_several_limits_is_short() -> None:
    escrow, book = Escrow({("key:a", "requests"): 10, ("key:a", "tokens"): 10}), LeaseBook("pod", "1")
    plan = (book.scope("key:a", "requests", 10), book.scope("key:a", "tokens", 10))
    for _ in range(3):
        book.reserve(plan, (1, 5, 0), START_MS)
        exchange(book, escrow, START_MS)
    before = [scope.lease.held for scope in plan]
    assert isinstance(book.reserve(plan, (1, 50, 0), START_MS), Scope)
    assert [scope.lease.held for scope in plan] == before and before[0] > 0


def test_a_message_from_before_changes_nothing() -> None:
    escrow = Escrow({SCOPE: 1000})
    first = LeaseRequest(*SCOPE, "l", 1, 0, 0, 500)
    escrow.handle([first, LeaseRequest(*SCOPE, "l", 2, 0, 0, 100)], START_MS)
    [lease] = escrow.handle([first], START_MS).leases
    assert lease.granted == 100 and escrow.committed[(*SCOPE, None)] == 100
    escrow.handle(
        [LeaseRequest(*SCOPE, "l", 3, 40, 0, 40, close=True), LeaseRequest(*SCOPE, "l", 4, 0, 0, 900)], START_MS
    )
    assert escrow.committed[(*SCOPE, None)] == 40, "a closed lease cannot be opened again"
