"""One chat completion through the gateway, streamed: plain OpenAI-style HTTP, as any application would send it."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import typer

from foundry_cli import profile
from foundry_cli.errors import CliError
from foundry_cli.output import console

_NEXT_BY_STATUS = {
    401: "foundry keys list",
    403: "foundry keys list",
    404: "foundry endpoints list",
    429: "ask again later",
}


@dataclass
class Answer:
    """What one streamed completion measured: times in ms, tokens as the engine counted them."""

    ttft_ms: float
    e2e_ms: float
    input_tokens: int
    output_tokens: int

    @property
    def tpot_ms(self) -> float:
        return (self.e2e_ms - self.ttft_ms) / max(1, self.output_tokens - 1)


def body_of(model: str, prompt: str, max_tokens: int) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def stream(url: str, key: str, body: dict[str, Any]) -> Iterator[str | Answer]:
    """Text pieces as they arrive, then one ``Answer``. ``CliError`` with the gateway's sentence when it refuses."""
    started = time.perf_counter()
    first: float | None = None
    usage: dict[str, int] = {}
    headers = {"authorization": f"Bearer {key}"}
    try:
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=300) as response:
            for event in _answered(response):
                usage = event.get("usage") or usage
                text = _text(event)
                if text:
                    first = first or time.perf_counter()
                    yield text
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise CliError(
            f"No whole answer from {url} ({error}).", "foundry status, or name a gateway with --url"
        ) from error
    ended = time.perf_counter()
    ttft_ms = ((first or ended) - started) * 1000
    yield Answer(ttft_ms, (ended - started) * 1000, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))


def _answered(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Events of the stream; ``CliError`` when it is refused, or when an event tells of an error."""
    if response.status_code != 200:
        refusal = _sentence(response.read()) or f"The gateway answered {response.status_code}."
        raise CliError(refusal, _NEXT_BY_STATUS.get(response.status_code, "foundry status"))
    for line in response.iter_lines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        if sentence := _sentence(line[6:]):
            raise CliError(f"The answer broke off: {sentence}", "ask again")
        yield _event(line[6:])


def _event(data: str) -> dict[str, Any]:
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError) as error:
        raise CliError("The answer is not a stream of chat completions.", "name a gateway with --url") from error


def _text(event: dict[str, Any]) -> str:
    choices = event.get("choices") or [{}]
    return str((choices[0].get("delta") or {}).get("content") or "")


def _sentence(document: str | bytes) -> str | None:
    """What a problem document or an OpenAI-style error says; None for anything else."""
    try:
        found = json.loads(document)
        return str(found.get("detail") or found["error"]["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def chat(
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint (the OpenAI `model`).")],
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    key: Annotated[str, typer.Option(envvar="FOUNDRY_API_KEY", help="A project API key.")] = "",
    url: Annotated[
        str | None, typer.Option(envvar="FOUNDRY_GATEWAY_URL", help="Gateway; the local platform's own by default.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Output tokens at most.")] = 256,
) -> None:
    """Stream one chat completion through the gateway."""
    if not key:
        raise CliError("A project API key is needed (--key or FOUNDRY_API_KEY).", "foundry keys create NAME")
    for piece in stream(url or profile.load().api_url, key, body_of(endpoint, prompt, max_tokens)):
        if isinstance(piece, Answer):
            console.print(
                f"\nTTFT {piece.ttft_ms:.0f} ms · TPOT {piece.tpot_ms:.1f} ms · "
                f"{piece.input_tokens} in, {piece.output_tokens} out",
                style="dim",
            )
        else:
            console.print(piece, end="")
