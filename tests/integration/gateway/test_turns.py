"""Requests and answers of one turn of the event loop are looked after together: none depends on the others."""

import asyncio
import json
from typing import Any

import pytest
from gateway.core.problems import Rejected
from gateway.flow import Flow

from .conftest import until


@pytest.fixture
def form() -> str:
    return "hot"


@pytest.fixture
def gateway_settings() -> dict[str, Any]:
    return {"drain_s": 30.0}


BODY = json.dumps({"model": "llama", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-test-1\r\nContent-Length: "
REQUEST = HEAD + b"%d\r\n\r\n" % len(BODY) + BODY
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def answered(client: Client) -> int:
    """The status of the next answer, which is read whole."""
    head = await asyncio.wait_for(client[0].readuntil(b"\r\n\r\n"), 10)
    await client[0].readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    return int(head.split()[1])


async def known(stack: Any, count: int) -> list[Client]:
    """Clients whose head the gateway has learned: what they ask next waits for the end of its turn."""
    clients = [await asyncio.open_connection("127.0.0.1", stack.port) for _ in range(count)]
    for client in clients:
        client[1].write(REQUEST)
        assert await answered(client) == 200
    return clients


def arrive(stack: Any) -> list[Any]:
    """A request on every connection, in one turn that is not over yet."""
    fronts = list(stack.hot.fronts)
    for front in fronts:
        front.data_received(REQUEST)
        front.data_received(REQUEST)  # pipelined
    assert len(stack.hot._asked) == len(fronts)
    return fronts


async def nothing_held(stack: Any) -> None:
    policy = stack.gateway.policy
    await until(lambda: not any(d.outstanding for d in policy.snapshot.deployments.values()))
    await until(lambda: not stack.hot._tasks)
    assert not any(scope.lease.held for scope in policy.book.scopes.values())


class BrokenTrace:
    """Of a request that fails at one step, as its trace does."""

    def __init__(self, step: str) -> None:
        self.step = step

    def begin_attempt(self, *_: Any) -> None:
        self._reach("begin_attempt")

    def end(self, *_: Any) -> None:
        self._reach("end")

    def _reach(self, step: str) -> None:
        if step == self.step:
            raise ArithmeticError("no such number")


async def test_what_cannot_be_settled_takes_no_other_row_with_it(stack: Any, caplog: pytest.LogCaptureFixture) -> None:
    [(_, writer)] = await known(stack, 1)
    [front] = stack.hot.fronts
    flows = [Flow(stack.hot, front, "/v1/chat/completions") for _ in range(3)]
    flows[1].trace = BrokenTrace("end")  # type: ignore[assignment]
    for flow in flows:
        stack.hot.settle_soon(flow, b"{}")
    assert [row["event_id"] for row in await stack.rows(3)][1:] == [flows[0].event_id, flows[2].event_id]
    assert f"request {flows[1].event_id} could not be settled" in caplog.text
    writer.close()


async def heard(client: Client) -> list[int]:
    """Of both requests of a connection; nothing where it ends before."""
    try:
        return [await answered(client) for _ in range(2)]
    except (asyncio.IncompleteReadError, ConnectionError):
        return []


UNSPEAKABLE = Rejected("a code without a status")  # so that the request cannot even be refused
BROKEN = {"admit": ("problem", UNSPEAKABLE), "proceed": ("trace", BrokenTrace("begin_attempt"))}


@pytest.mark.parametrize("step", BROKEN)
async def test_a_request_that_fails_ends_alone(stack: Any, caplog: pytest.LogCaptureFixture, step: str) -> None:
    clients = await known(stack, 4)
    arrive(stack)
    flow = stack.hot._asked[1]
    setattr(flow, *BROKEN[step])
    assert sorted([await heard(client) for client in clients]) == [[], *[[200, 200]] * 3]
    assert f"request {flow.event_id} failed" in caplog.text
    await nothing_held(stack)
    for _, writer in clients:
        writer.close()


async def test_who_leaves_before_its_turn_is_over_was_never_sent(stack: Any) -> None:
    clients = await known(stack, 4)
    left, *stay = arrive(stack)
    left.connection_lost(None)
    left.transport.abort()
    rows = await stack.rows(4 + 1 + 2 * len(stay))
    [row] = [row for row in rows if row["outcome"] != "ok"]
    assert (row["outcome"], row["status"], row["deployment_id"], row["cost_nanos"]) == ("cancelled", 499, "", 0)
    assert sum(len(engine.requests) for engine in stack.engines) == len(rows) - 1
    await nothing_held(stack)
    for _, writer in clients:
        writer.close()


async def test_a_key_that_is_deleted_before_the_turn_is_over_is_no_key(stack: Any) -> None:
    clients = await known(stack, 2)
    arrive(stack)
    await stack.reconfigure(keys=stack.config["keys"][1:])
    assert [await answered(client) for client in clients for _ in range(2)] == [401] * 4
    await nothing_held(stack)
    for _, writer in clients:
        writer.close()


async def test_what_has_arrived_is_answered_when_the_gateway_drains(stack: Any) -> None:
    clients = await known(stack, 2)
    arrive(stack)
    await stack.hot.drain()
    assert [await answered(client) for client in clients for _ in range(2)] == [200] * 4
    assert [await client[0].read() for client in clients] == [b""] * 2
    assert {row["outcome"] for row in await stack.rows(6)} == {"ok"}
    for _, writer in clients:
        writer.close()


async def test_requests_of_one_turn_keep_a_budget_together(stack: Any) -> None:
    clients = await known(stack, 8)
    stack.config["keys"][0]["limits"] = {"budget_nanos": 1500}  # one holds more than half, and takes 200
    await stack.reconfigure()
    arrive(stack)
    for client in clients * 2:
        await answered(client)
    assert sum(row["cost_nanos"] for row in (await stack.rows(24))[8:]) <= 1500
    for _, writer in clients:
        writer.close()
