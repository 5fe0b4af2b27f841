"""Requests that wait for a sleeping deployment: what holds when they go on, and what becomes of their place."""

import asyncio
import json
from typing import Any

import pytest

CHAT = json.dumps({"model": "llama", "messages": [{"role": "user", "content": "hi"}]}).encode()
ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-test-1\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(CHAT), CHAT)
)


async def until_held(stack: Any, count: int) -> None:
    for _ in range(400):
        if stack.gateway.requests_held == count:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{stack.gateway.requests_held} requests are held")


def put_to_sleep(stack: Any, asleep: bool) -> None:
    for deployment in stack.config["endpoints"][0]["tiers"][0]:
        deployment["asleep"] = asleep


async def held(stack: Any, count: int = 1, **fields: Any) -> list["asyncio.Task[Any]"]:
    """Requests that wait, with up to a minute of patience."""
    put_to_sleep(stack, True)
    await stack.change_endpoint(policy={"hold_s": 60, "hold_queue": 4})
    asking = [asyncio.create_task(stack.chat(**fields)) for _ in range(count)]
    await until_held(stack, count)
    return asking


async def wake(stack: Any, **changes: Any) -> None:
    put_to_sleep(stack, False)
    await stack.change_endpoint(**changes)


async def test_the_price_after_the_hold_counts_against_the_budget(stack: Any) -> None:
    stack.config["keys"][0]["limits"] = {"budget_nanos": 10_000_000}
    stack.engine.usage = stack.engines[1].usage = {"prompt_tokens": 2, "completion_tokens": 100, "total_tokens": 102}
    asking = await held(stack, 3, max_tokens=100)
    await wake(stack, price={"input_nanos_per_token": 10, "output_nanos_per_token": 60_000})
    assert sorted([(await task).status_code for task in asking]) == [200, 429, 429]
    assert sum(row["cost_nanos"] for row in await stack.rows(3)) <= 10_000_000


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (None, 401),
        ({"expires_at_ms": 1}, 401),
        ({"cidrs": ["10.0.0.0/8"]}, 403),
        ({"cidrs": ["127.0.0.0/8"]}, 200),
        ({"models": ["other"]}, 403),
        ({"limits": {"requests_per_minute": 0}}, 429),
    ],
)
async def test_the_key_after_the_hold_decides(stack: Any, change: dict[str, Any] | None, status: int) -> None:
    [asking] = await held(stack)
    key, *others = stack.config["keys"]
    stack.config["keys"] = others if change is None else [key | change, *others]
    await wake(stack)
    assert (await asking).status_code == status


@pytest.mark.parametrize(
    "rule", [{"kind": "cidr", "value": "127.0.0.1/32"}, {"kind": "user_agent", "value": "python-httpx"}]
)
async def test_a_caller_who_was_blocked_meanwhile_is_refused(stack: Any, rule: dict[str, str]) -> None:
    [asking] = await held(stack)
    stack.config["blocking"] = [{"id": "b", **rule}]
    await wake(stack)
    assert (await asking).status_code == 403


async def test_an_endpoint_that_was_closed_meanwhile_says_why(stack: Any) -> None:
    [asking] = await held(stack)
    await wake(stack, problem="its address is gone")
    answer = await asking
    assert answer.json()["error"]["code"] == "endpoint_closed" and "its address is gone" in answer.text


async def test_the_place_of_a_client_who_leaves_is_free_at_once(stack: Any) -> None:
    put_to_sleep(stack, True)
    await stack.change_endpoint(policy={"hold_s": 60, "hold_queue": 1})
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write(ASK)
        await until_held(stack, 1)
        writer.close()
        await until_held(stack, 0)
    rows = await stack.rows(3)
    assert {(row["outcome"], row["status"]) for row in rows} == {("cancelled", 499)}


async def test_what_a_client_who_left_had_reserved_goes_back(stack: Any) -> None:
    stack.config["keys"][0]["limits"] = {"budget_nanos": 10_000_000}
    [asking] = await held(stack)
    lease = stack.gateway.policy.book.scopes["key:key_1", "money_nanos"].lease
    assert lease.held > 0
    asking.cancel()
    await until_held(stack, 0)
    await stack.rows(1)
    assert (lease.held, lease.spent) == (0, 0)


async def test_the_time_of_the_hold_is_no_part_of_the_answers(stack: Any) -> None:
    """Neither of the time that a request may take, nor of what is learnt about the deployment."""
    [asking] = await held(stack)
    if stack.hot is not None:
        for flow in stack.hot.held:
            flow.arrived_s -= stack.gateway.settings.total_timeout_s
    answering = asyncio.Event()

    async def slow(engine: Any, request: Any, writer: Any) -> None:
        await answering.wait()
        engine.answer(writer, engine.completion(request))

    stack.engine.script = stack.engines[1].script = slow
    await wake(stack)
    for _ in range(400):
        if any(engine.requests for engine in stack.engines):
            break
        await asyncio.sleep(0.005)
    if stack.hot is not None:
        stack.hot.tend()
    answering.set()
    assert (await asking).status_code == 200
    latency_s = max(d.latency_s for d in stack.gateway.policy.snapshot.deployments.values())
    assert 0 < latency_s < 30
