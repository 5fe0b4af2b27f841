"""The worst case covers what providers add and what an address stands for."""

import json
from typing import Any

import pytest
from gateway.core.call import parse
from gateway.core.reserve import TOKENS_OF_INSTRUCTIONS, TOKENS_PER_ATTACHMENT, input_bound

PICTURE = "https://example.com/a.png"
PLAIN = [{"role": "user", "content": 'What does {"image_url": …} and "source" and "tools" mean?'}]


def bound(**fields: Any) -> tuple[int, int]:
    """The bound, and the size of the body."""
    body = json.dumps({"model": "m", **fields}, ensure_ascii=False).encode()
    return input_bound(parse(body), body), len(body)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": PLAIN},
        {"messages": [], "prompt": 'a "image" in words'},
        {"input": "some text"},
        {"input": ["some", "texts"]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "words"}]}]},
        {"messages": "of another shape"},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
    ],
)
def test_text_is_at_most_a_token_a_byte(fields: dict[str, Any]) -> None:
    found, size = bound(**fields)
    assert found == size


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}]},
        {"messages": [{"content": [{"type": "image", "source": {"type": "url", "url": PICTURE}}]}]},
        {"messages": [{"content": [{"type": "document", "source": {"type": "url", "url": PICTURE}}]}]},
        {"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": "aGk="}}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]}]},
        {"messages": PLAIN, "input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        {"messages": {"content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}},
    ],
)
def test_attachments_are_bounded_apart(fields: dict[str, Any]) -> None:
    found, size = bound(**fields)
    assert found >= size + TOKENS_PER_ATTACHMENT


def test_tools_bring_instructions_that_the_client_does_not_see() -> None:
    found, size = bound(messages=PLAIN, tools=[{"name": "f", "input_schema": {"type": "object"}}])
    assert found == size + TOKENS_OF_INSTRUCTIONS
