"""Shadow deployments and canaries, in both forms of the gateway."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from .conftest import Engine, EngineRequest, Stack

CANARY_REQUESTS = 400


async def shadow(stack: Stack, weight: float = 1.0, **more: Any) -> tuple[Engine, Engine]:
    """The second deployment becomes a shadow of the first; returns the engines of both."""
    stack.config["endpoints"][0]["tiers"][0][1].update({"shadow": True, "weight": weight, **more})
    stack.gateway.policy.chooser.random.seed(7)
    await stack.reconfigure()
    return stack.engines[0], stack.engines[1]


async def copied(engine: Engine, count: int) -> None:
    """Wait until so many copies have arrived."""
    for _ in range(100_000):
        if len(engine.requests) >= count:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{len(engine.requests)} copies instead of {count}")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_copy_is_metered_apart_and_costs_nothing(stack: Stack, stream: bool) -> None:
    _, other = await shadow(stack, model="llama-next")
    other.usage = {"prompt_tokens": 11, "completion_tokens": 7}
    response = await stack.chat(stream=stream, seed=1)
    assert response.status_code == 200
    rows = {row["outcome"]: row for row in await stack.rows(2)}
    assert (rows["ok"]["deployment_id"], rows["shadow"]["deployment_id"]) == ("dep_0", "dep_1")
    copy = rows["shadow"]
    assert (copy["cost_nanos"], copy["output_tokens"], copy["usage_source"]) == (0, 7, "upstream")
    assert (copy["status"], copy["error_code"], copy["model"], copy["stream"]) == (200, "", "llama-next", stream)
    assert copy["request_id"] == rows["ok"]["request_id"] and copy["event_id"] != rows["ok"]["event_id"]
    assert copy["e2e_ms"] >= copy["ttft_ms"] > 0 if stream else copy["ttft_ms"] is None
    [request] = other.requests
    assert request.json()["model"] == "llama-next" and request.json()["seed"] == 1
    assert "sk-test" not in str(request.headers)


async def test_a_shadow_that_hangs_or_fails_is_nothing_to_the_client(stack: Stack) -> None:
    first, other = await shadow(stack)
    gate = asyncio.Event()

    async def hang(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        engine.answer(writer, {"error": "no"}, 500)

    other.script = hang
    for _ in range(3):
        assert (await stack.chat()).json()["choices"][0]["message"]["content"] == "hello"
    await copied(other, 3)
    assert len(first.requests) == 3
    gate.set()
    rows = await stack.rows(6)
    assert sorted((row["outcome"], row["status"]) for row in rows) == [("ok", 200)] * 3 + [("shadow", 500)] * 3


async def test_a_shadow_that_is_away(stack: Stack) -> None:
    _, other = await shadow(stack)
    await other.stop()
    await stack.chat()
    [row] = [row for row in await stack.rows(2) if row["outcome"] == "shadow"]
    assert (row["status"], row["error_code"], row["output_tokens"]) == (502, "upstream_unreachable", 0)


async def test_no_more_copies_than_allowed_are_under_way(stack: Stack) -> None:
    _, other = await shadow(stack)
    gate = asyncio.Event()

    async def hang(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        engine.answer(writer, engine.completion(request))

    other.script = hang
    shadows = stack.gateway.extras.shadows
    allowed = stack.gateway.settings.shadow_copies
    for _ in range(allowed + 5):
        assert (await stack.chat()).status_code == 200
    await copied(other, allowed)
    assert (len(other.requests), shadows.skipped) == (allowed, 5)
    gate.set()
    await stack.rows(allowed + 5 + allowed)


async def test_the_weight_is_the_share_of_requests_that_a_shadow_sees(stack: Stack) -> None:
    _, other = await shadow(stack, weight=0.25)
    for _ in range(200):
        await stack.chat()
        await asyncio.sleep(0)
    await asyncio.gather(*stack.gateway.extras.shadows._tasks)
    assert 30 < len(other.requests) < 70  # 50 ± 3.3 standard deviations


async def test_copies_hold_no_limits_and_answers_of_policy_are_not_copied(stack: Stack) -> None:
    stack.config["keys"][0]["limits"] = {"requests_per_minute": 100, "budget_nanos": 10**9}
    _, other = await shadow(stack)
    await stack.chat()
    await copied(other, 1)
    await stack.client.post("/v1/chat/completions", json={"model": "nope"}, headers=stack.headers())
    rows = await stack.rows(3)
    spent = {kind: scope.lease.spent for (_, kind), scope in stack.gateway.policy.book.scopes.items()}
    assert spent == {"requests": 1, "money_nanos": 11 * 10 + 3 * 30}
    assert Counter(row["outcome"] for row in rows) == {"ok": 1, "rejected": 1, "shadow": 1}


async def test_a_shadow_gets_what_the_guardrails_let_pass(stack: Stack) -> None:
    rule = {"id": "g", "kind": "pii", "patterns": ["email"], "action": "redact"}
    stack.config["endpoints"][0]["policy"] = {"guardrails": [rule]}
    first, other = await shadow(stack)
    await stack.chat(messages=[{"role": "user", "content": "joe.doe@example.com"}])
    await copied(other, 1)
    assert first.requests[0].json() == other.requests[0].json()
    assert b"joe" not in other.requests[0].body


async def test_copies_end_with_the_gateway_and_are_metered(stack: Stack) -> None:
    _, other = await shadow(stack)

    async def hang(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    other.script = hang
    await stack.chat()
    await copied(other, 1)
    await stack.gateway.extras.shadows.close()
    [row] = [row for row in await stack.rows(2) if row["outcome"] == "shadow"]
    assert (row["status"], row["error_code"]) == (499, "cancelled")


async def test_a_canary_gets_its_share(stack: Stack) -> None:
    stack.config["endpoints"][0]["policy"] = {"routing": "weighted"}
    stack.config["endpoints"][0]["tiers"][0][1].update({"weight": 0.1})
    await stack.reconfigure()
    stack.gateway.policy.chooser.random.seed(7)
    for _ in range(CANARY_REQUESTS):
        await stack.chat()
    share = len(stack.engines[1].requests) / CANARY_REQUESTS
    assert abs(share - 0.1 / 1.1) < 0.045  # 3.1 standard deviations
