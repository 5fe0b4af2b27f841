"""A gateway's own leasing against the real control plane: what one sends is what the other takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway.clock import now_ms
from gateway.control import ControlPlane
from gateway.core.policy import Policy
from gateway.journal import LeaseJournal
from gateway.leasing import Leasing

Call = Callable[..., Any]
BUDGET = 10**6


@pytest.fixture
def token(call: Call) -> str:
    return str(call("POST", "/gateways", {"name": "edge"}, "operator").ok(201)["token"])


@pytest.fixture
def key(call: Call, project: str) -> str:
    made = call("POST", f"/projects/{project}/keys", {"name": "k", "limits": {"budget_nanos": BUDGET}}).ok(201)
    return str(made["id"])


def leasing(token: str, folder: Path, boot: str) -> Leasing:
    """A gateway process as far as leases go."""
    from functions.app.handler import app

    control = ControlPlane("http://control", token, "pod-0", httpx.ASGITransport(app))
    return Leasing(Policy("pod-0", boot), control, LeaseJournal(folder / "leases"), 1.0)


async def test_a_bad_message_and_hundreds_of_limits_stop_no_budget(key: str, token: str, tmp_path: Path) -> None:
    first = leasing(token, tmp_path, "b1")
    names = ["key:not a name", *(f"key:gone-{number}" for number in range(120)), f"key:{key}"]
    scopes = [first.policy.book.scope(name, "money_nanos", BUDGET) for name in names]
    for scope in scopes:
        first.policy.book.reserve((scope,), (1, 1, 10), now_ms())
    await first._exchange_leases(sweep=True)
    assert scopes[0].refused and scopes[-1].lease.free >= 10
    first.policy.book.reserve((scopes[-1],), (1, 1, 10), now_ms())  # killed with that in flight
    second = leasing(token, tmp_path, "b2")
    for _ in range(3):
        await second._exchange_leases(sweep=True)
    assert not second.journal._used
    assert committed(key) == 10


def committed(key: str) -> int:
    from functions.app.store import leases

    return leases.load(f"key:{key}", "money_nanos", None).committed
