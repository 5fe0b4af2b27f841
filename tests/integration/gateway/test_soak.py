"""Mixed load while engines die, the config changes and the control plane is away: no error, exact metering."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest

SECONDS = 4.0


@pytest.mark.parametrize("form", ["hot"], indirect=True)
async def test_nothing_is_lost_and_nothing_is_doubled(stack: Any) -> None:
    stack.config["keys"][0]["limits"] = {"requests_per_minute": 10**6, "budget_nanos": 10**15}
    stack.config["projects"] = [{"id": "prj_1", "limits": {"tokens_per_minute": 10**9}}]
    await stack.reconfigure()
    ends_s = time.monotonic() + SECONDS
    statuses: Counter[int] = Counter()
    seen: set[str] = set()

    async def client(number: int) -> None:
        while time.monotonic() < ends_s:
            response = await stack.chat(stream=number % 2 == 0, max_tokens=10)
            statuses[response.status_code] += 1
            seen.add(response.headers["x-request-id"])
            if number % 2 == 0:
                assert response.text.endswith("data: [DONE]\n\n")

    async def engine_trouble() -> None:
        """One engine at a time refuses connections for a while; what it has begun it completes."""
        number = 0
        while time.monotonic() < ends_s:
            engine = stack.engines[number % 2]
            engine._server.close()
            await asyncio.sleep(0.25)
            await engine.start()
            await asyncio.sleep(0.25)
            number += 1

    async def changes() -> None:
        version = 1
        while time.monotonic() < ends_s:
            version += 1
            stack.config["version"] = version
            stack.stand_in.put_config(stack.config)
            await stack.gateway._poll_once()
            stack.gateway.take(b"{broken")
            await asyncio.sleep(0.1)

    async def outages() -> None:
        await asyncio.sleep(1.0)
        stack.stand_in.away = True
        await asyncio.sleep(0.8)
        stack.stand_in.away = False

    await asyncio.gather(*(client(number) for number in range(8)), engine_trouble(), changes(), outages())
    total = sum(statuses.values())
    assert set(statuses) == {200}, statuses
    rows = await stack.rows(total)
    assert {row["request_id"] for row in rows} == seen and len(seen) == total
    assert {row["outcome"] for row in rows} == {"ok"}
    assert {(row["input_tokens"], row["output_tokens"]) for row in rows} == {(11, 3)}
    spent = sum(row["cost_nanos"] for row in rows)
    leases = [s.lease for s in stack.gateway.policy.book.scopes.values() if s.kind == "money_nanos"]
    retired = [lease for _, lease in stack.gateway.policy.book.retired.values()]
    assert all(lease.held == 0 for lease in leases + retired)
    assert sum(lease.spent for lease in leases) <= spent == total * (11 * 10 + 3 * 30)
    assert json.loads(stack.gateway.snapshot_path.read_bytes())["version"] == stack.config["version"]
