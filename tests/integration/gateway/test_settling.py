"""Whole answers of one turn of the event loop are settled together: none depends on the others."""

from typing import Any

import pytest
from gateway.core.shapes import Row


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
