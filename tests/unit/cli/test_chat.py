"""What the client reads from a stream: text, times, and the engine's own count of tokens."""

import asyncio
import json
from collections.abc import Iterator

import httpx
import pytest
from foundry_cli import chat, load
from foundry_cli.chat import Answer
from foundry_cli.errors import CliError


def sse(*events: dict[str, object]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


STREAM = sse(
    {"choices": [{"delta": {"role": "assistant"}}]},
    {"choices": [{"delta": {"content": "Hel"}}]},
    {"choices": [{"delta": {"content": "lo"}}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[httpx.Response]]:
    """Answers every request with the first response in the list."""
    answers: list[httpx.Response] = []
    transport = httpx.MockTransport(
        lambda _: httpx.Response(answers[0].status_code, stream=httpx.ByteStream(answers[0].content))
    )
    client, async_client = httpx.Client(transport=transport), httpx.AsyncClient
    monkeypatch.setattr(chat.httpx, "stream", client.stream)
    monkeypatch.setattr(load.httpx, "AsyncClient", lambda **options: async_client(**options, transport=transport))
    yield answers


def test_a_stream_is_text_then_measurements(gateway: list[httpx.Response]) -> None:
    gateway.append(httpx.Response(200, content=STREAM))
    *text, answer = chat.stream("http://g", "k", chat.body_of("m", "hi", 5))
    assert text == ["Hel", "lo"] and isinstance(answer, Answer)
    assert (answer.input_tokens, answer.output_tokens) == (3, 2) and 0 <= answer.ttft_ms <= answer.e2e_ms


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"detail": "This key has expired."}', "This key has expired."),
        (b'{"error": {"message": "No such model."}}', "No such model."),
        (b"oops", "The gateway answered 401."),
        (b"[]", "The gateway answered 401."),
    ],
)
def test_a_refusal_is_the_gateways_own_sentence(gateway: list[httpx.Response], body: bytes, sentence: str) -> None:
    gateway.append(httpx.Response(401, content=body))
    with pytest.raises(CliError, match=sentence):
        list(chat.stream("http://g", "k", chat.body_of("m", "hi", 5)))


def test_a_load_counts_what_was_answered_and_what_was_not(gateway: list[httpx.Response]) -> None:
    gateway.append(httpx.Response(200, content=STREAM))
    result = asyncio.run(load._run("http://g", "k", {}, concurrency=3, requests=7))
    assert len(result.answers) == 7 and {answer.output_tokens for answer in result.answers} == {2}
    assert not result.failures and result.output_tokens_per_s > 0


def test_a_load_without_an_answer_is_an_error(gateway: list[httpx.Response]) -> None:
    gateway.append(httpx.Response(503))
    with pytest.raises(CliError, match="status 503"):
        load.run("http://g", "k", {}, concurrency=2, requests=2)
