"""The worst case covers what providers add and what an address stands for."""

import json
from typing import Any

import pytest
from gateway.core.call import parse
from gateway.core.reserve import TOKENS_OF_INSTRUCTIONS, TOKENS_PER_ATTACHMENT, input_bound


def bound(**fields: Any) -> tuple[int, int]:
    """The bound and the size of a body."""
    body = json.dumps({"model": "m", "messages": [], **fields}).encode()
    return input_bound(parse(body), body), len(body)


def test_text_is_at_most_its_bytes() -> None:
    most, size = bound(messages=[{"role": "user", "content": 'a "source" and "tools" in quotes'}])
    assert most == size


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
    ],
)
def test_what_is_behind_an_address_is_counted(part: dict[str, Any]) -> None:
    most, size = bound(messages=[{"role": "user", "content": [part]}])
    assert most >= size + TOKENS_PER_ATTACHMENT


def test_tools_bring_instructions_that_the_client_does_not_see() -> None:
    most, size = bound(tools=[{"name": "f", "input_schema": {"type": "object"}}])
    assert most == size + TOKENS_OF_INSTRUCTIONS
