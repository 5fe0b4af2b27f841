"""Requests and answers of one turn of the event loop are looked after together: none depends on the others."""

import asyncio
from typing import Any

import pytest
from gateway.core.shapes import Row

from .conftest import until


@pytest.fixture
def form() -> str:
    return "hot"


class Answered:
    """A flow whose answer was passed on; without a row it cannot be settled."""

    def __init__(self, event_id: str, row: Row | None) -> None:
        self.event_id = event_id
        self.row = row

    def settle(self, answer: bytes) -> Row:
        if self.row is None:
            raise ArithmeticError("no such number")
        return self.row


async def test_what_cannot_be_settled_takes_no_other_row_with_it(stack: Any, caplog: pytest.LogCaptureFixture) -> None:
    for event_id, row in (("e1", Row("e1", 1, "g")), ("e2", None), ("e3", Row("e3", 1, "g"))):
        stack.hot.settle_soon(Answered(event_id, row), b"{}")
    assert [row["event_id"] for row in await stack.rows(2)] == ["e1", "e3"]
    assert "request e2 could not be settled" in caplog.text


class Asked:
    """A flow whose request has come; one that is broken cannot even be refused."""

    def __init__(self, front: Any, broken: str = "", over: bool = False) -> None:
        self.event_id = "e4"
        self.front = front
        self.broken = broken
        self.over = over
        self.steps: list[str] = []

    def admit(self) -> bool:
        self._step("admit")
        return True

    def proceed(self) -> None:
        self._step("proceed")

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.broken:
            raise ArithmeticError("no such number")


@pytest.mark.parametrize("broken", ["admit", "proceed"])
async def test_a_request_that_fails_ends_alone(stack: Any, caplog: pytest.LogCaptureFixture, broken: str) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    await until(lambda: len(stack.hot.fronts) == 1)
    [front] = stack.hot.fronts
    flows = [Asked(front), Asked(front, broken=broken), Asked(front, over=True), Asked(front)]
    for flow in flows:
        stack.hot.run_soon(flow)
    await until(lambda: not stack.hot.fronts)
    writer.close()
    whole = ["admit", "proceed"]
    assert [flow.steps for flow in flows] == [whole, whole[: whole.index(broken) + 1], [], whole]
    assert "request e4 failed" in caplog.text
