"""Budgets on the real store: whatever order messages of several gateways arrive in, no budget is passed."""

from collections.abc import Callable
from typing import Any

import pytest
from foundry_core.clock import fixed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Call = Callable[..., Any]
NOW_MS = 1_800_000_000_000
BUDGET = 1000
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hold", "settle", "tell", "tell", "upload", "crash", "come back", "repeat", "a day"]),
        st.integers(0, 2),
        st.integers(1, 400),
    ),
    max_size=40,
)


@pytest.fixture
def scope(call: Call, project: str) -> str:
    key = call("POST", f"/projects/{project}/keys", {"name": "k", "limits": {"budget_nanos": BUDGET}}).ok(201)
    return f"key:{key['id']}"


def test_an_endpoint_does_not_inherit_what_an_earlier_one_of_its_name_spent(call: Call, project: str) -> None:
    path = f"/projects/{project}/endpoints"
    endpoint = {"name": "chat", "provider": "openai", "url": "https://api.example.com", "model": "m",
                "limits": {"budget_nanos": BUDGET}}  # fmt: skip
    for number in range(2):
        call("POST", path, endpoint).ok(201)
        pod = Pod("endpoint:chat", number)
        pod.tell(BUDGET)
        assert pod.granted == BUDGET
        pod.hold(BUDGET)
        pod.settle(BUDGET)
        pod.tell()
        other = Pod("endpoint:chat", 7)
        other.tell(1)
        assert other.granted == 0
        call("DELETE", f"{path}/chat").ok(204)


class Pod:
    """A gateway that keeps the contract, on the control plane's own service and store."""

    def __init__(self, scope: str, number: int) -> None:
        self.scope, self.number, self.boots = scope, number, 0
        self.lost: list[tuple[str, int, int]] = []
        self.last: dict[str, Any] | None = None
        self.start()

    def start(self) -> None:
        self.boots += 1
        self.granted = self.spent = self.held = self.rows = self.seq = 0

    @property
    def lease_id(self) -> str:
        return f"{self.number}.{self.boots}"

    def send(self, **fields: Any) -> int:
        from functions.app.services import leases
        from functions.app.wire import LeaseRequest

        self.last = {"scope": self.scope, "kind": "money_nanos", **fields}
        return leases.lease(f"gw_{self.number}", [LeaseRequest.model_validate(self.last)])[0].granted

    def tell(self, more: int = 0) -> None:
        self.seq += 1
        ceiling = max(self.granted + more, self.spent + self.held)
        totals = {"spent": self.spent, "held": self.held, "ceiling": ceiling, "needed": more}
        self.granted = self.send(lease_id=self.lease_id, seq=self.seq, **totals)

    def hold(self, amount: int) -> None:
        self.held += min(amount, max(self.granted - self.spent - self.held, 0))

    def settle(self, amount: int) -> None:
        used = min(self.held, amount)
        self.held, self.spent, self.rows = 0, self.spent + used, self.rows + used

    def crash(self) -> None:
        self.lost.append((self.lease_id, self.spent + self.held, self.rows + self.held))
        self.start()

    def come_back(self) -> int:
        for lease_id, spent, _ in self.lost:
            self.send(lease_id=lease_id, seq=2**53 - 1, spent=spent, close=True)
        rows = sum(rows for *_, rows in self.lost)
        self.lost.clear()
        return rows

    @property
    def at_risk(self) -> int:
        return self.rows + self.held + sum(rows for *_, rows in self.lost)


def step(pods: list[Pod], what: str, pod: Pod, amount: int) -> int:
    """Do one thing. Returns what was metered by it."""
    if what == "tell":
        pod.tell(amount)
    elif what == "upload" and pod.rows:
        pod.tell()
        metered, pod.rows = pod.rows, 0
        return metered
    elif what == "come back":
        return pod.come_back()
    elif what == "repeat" and pod.last is not None:
        pod.send(**pod.last)
    elif what in ("hold", "settle"):
        getattr(pod, what)(amount)
    elif what == "crash":
        pod.crash()
    return 0


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_spend_never_passes_the_budget(scope: str, steps: list[tuple[str, int, int]]) -> None:
    from functions.app.store import leases as store
    from functions.app.store.table import BudgetItem

    for item in BudgetItem.query(f"BUDGET#{scope}#money_nanos"):
        item.delete()
    pods, at_ms, metered = [Pod(scope, number) for number in range(3)], NOW_MS, 0
    for what, number, amount in steps:
        if what == "a day":  # who lives keeps in touch, who was lost before it never comes back
            for pod in pods:
                pod.lost.clear()
        for _ in range(26 if what == "a day" else 1):
            at_ms += 3_600_000 if what == "a day" else 1000
            with fixed(at_ms):
                metered += step(pods, what, pods[number], amount)
                for pod in pods if what == "a day" else ():
                    pod.tell()
        committed = store.load(scope, "money_nanos", None).committed
        assert metered + sum(pod.at_risk for pod in pods) <= committed <= BUDGET
