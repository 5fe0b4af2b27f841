"""What the client reads from a stream: text, times, and the engine's own count of tokens."""

import asyncio
import json

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
def gateway(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Response]:
    """Answers every request with the first response in the list."""
    answers: list[httpx.Response] = []
    monkeypatch.setattr(chat.httpx, "stream", httpx.Client(transport=httpx.MockTransport(lambda _: answers[0])).stream)
    return answers


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


@pytest.mark.parametrize(("status", "advice"), [(401, "keys list"), (404, "endpoints list"), (429, "later")])
def test_a_refusal_names_what_helps(gateway: list[httpx.Response], status: int, advice: str) -> None:
    gateway.append(httpx.Response(status))
    with pytest.raises(CliError) as caught:
        list(chat.stream("http://g", "k", chat.body_of("m", "hi", 5)))
    assert str(caught.value.next_command).endswith(advice)


@pytest.mark.parametrize(
    ("last", "sentence"),
    [(b'{"error": {"message": "The engine died."}}', "The engine died."), (b"[1]", "not a stream"), (b"{", "not a")],
)
def test_an_error_within_a_stream_ends_it(gateway: list[httpx.Response], last: bytes, sentence: str) -> None:
    gateway.append(httpx.Response(200, content=sse({"choices": [{"delta": {"content": "Hel"}}]}) + b"data: " + last))
    pieces = chat.stream("http://g", "k", chat.body_of("m", "hi", 5))
    assert next(pieces) == "Hel"
    with pytest.raises(CliError, match=sentence):
        list(pieces)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "g", "http://[", "http://127.0.0.1:99999"])
def test_no_gateway_is_one_sentence(url: str) -> None:
    with pytest.raises(CliError, match="No whole answer from") as caught:
        list(chat.stream(url, "k", chat.body_of("m", "hi", 5)))
    assert "foundry status" in str(caught.value.next_command)


async def served(answer: bytes, bodies: list[dict[str, object]]) -> tuple[load.LoadResult, set[bytes]]:
    """The result of a load on a server that gives every request the same bytes, and the requests it saw."""
    seen: set[bytes] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            seen.add(await reader.readexactly(length))
            writer.write(answer[:40])
            await writer.drain()
            writer.write(answer[40:])

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    requests = [load.request_bytes(f"http://127.0.0.1:{port}", "k", body) for body in bodies]
    result = await load._run(f"http://127.0.0.1:{port}", requests, concurrency=3)
    server.close()
    return result, seen


def response(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def test_a_load_sends_each_body_once_and_counts_the_engines_tokens() -> None:
    bodies: list[dict[str, object]] = [{"n": number} for number in range(7)]
    result, seen = asyncio.run(served(response("200 OK", STREAM), bodies))
    assert {json.loads(body)["n"] for body in seen} == set(range(7)) and not result.failures
    assert {answer.output_tokens for answer in result.answers} == {2} and len(result.answers) == 7
    assert result.output_tokens_per_s > 0 and all(0 < one.ttft_ms <= one.e2e_ms for one in result.answers)


def test_a_load_counts_refusals() -> None:
    result, _ = asyncio.run(served(response("503 Busy", b"{}"), [{}, {}]))
    assert result.failures == ["status 503"] * 2 and not result.answers


def test_a_load_without_an_answer_is_an_error() -> None:
    with pytest.raises(CliError, match="No request was answered"):
        load.run("http://127.0.0.1:9", "k", [{}], concurrency=1)
