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
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=300) as response:
        if response.status_code != 200:
            raise CliError(_refusal(response.read(), response.status_code), "foundry keys list")
        for event in _events(response.iter_lines()):
            usage = event.get("usage") or usage
            text = _text(event)
            if text:
                first = first or time.perf_counter()
                yield text
    ended = time.perf_counter()
    ttft_ms = ((first or ended) - started) * 1000
    yield Answer(ttft_ms, (ended - started) * 1000, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line[6:])


def _text(event: dict[str, Any]) -> str:
    choices = event.get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")


def _refusal(body: bytes, status: int) -> str:
    try:
        error = json.loads(body)
        return str(error.get("detail") or error["error"]["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"The gateway answered {status}."


def chat(
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint (the OpenAI `model`).")],
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    key: Annotated[str, typer.Option(envvar="FOUNDRY_API_KEY", help="A project API key.")] = "",
    url: Annotated[str | None, typer.Option(envvar="FOUNDRY_GATEWAY_URL", help="Gateway; the platform's own.")] = None,
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
