"""One engine behind a Kubernetes service, reached through the API server's proxy: a question, and its metrics."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from functions.cluster.errors import EngineFailed, ManifestRejected
from functions.cluster.kube import Kube

_TIMEOUT_S = 60.0
_METRICS_TIMEOUT_S = 5.0
_MAX_BYTES = 1 << 20
_RUNNING = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "sglang:num_running_reqs",
    "sglang:num_queue_reqs",
)
_QUESTION = "Answer with one word: what is the capital of France?"


@dataclass(frozen=True, slots=True)
class Answer:
    """A streamed completion as the caller saw it; times from sending the request."""

    ttft_ms: float
    e2e_ms: float
    output_tokens: int
    text: str

    @property
    def tpot_ms(self) -> float | None:
        """Milliseconds per output token after the first; None for a single token."""
        return (self.e2e_ms - self.ttft_ms) / (self.output_tokens - 1) if self.output_tokens > 1 else None


def ask(kube: Kube, service: str, model: str, embeds: bool = False) -> Answer:
    """One real question. Raises ``EngineFailed`` when the answer is not one."""
    try:
        return _embed(kube, service, model) if embeds else _complete(kube, service, model)
    except ManifestRejected as error:
        raise EngineFailed(f"The engine refused a question: {error.detail}",
                           next_action="Look at its pod's log.") from error  # fmt: skip


def _complete(kube: Kube, service: str, model: str) -> Answer:
    """A streamed chat completion; a plain one where the model has no chat template."""
    common = {"model": model, "max_tokens": 16, "temperature": 0, "stream": True,
              "stream_options": {"include_usage": True}}  # fmt: skip
    chat = {**common, "messages": [{"role": "user", "content": _QUESTION}]}
    try:
        return _streamed(kube, service, "/v1/chat/completions", chat)
    except ManifestRejected:
        return _streamed(kube, service, "/v1/completions", {**common, "prompt": _QUESTION})


def _streamed(kube: Kube, service: str, path: str, body: dict[str, Any]) -> Answer:
    started = time.perf_counter()
    with kube.proxied("POST", service, path, body, _TIMEOUT_S) as response:
        return _answer(response, started)


def _embed(kube: Kube, service: str, model: str) -> Answer:
    started = time.perf_counter()
    body = {"model": model, "input": _QUESTION}
    with kube.proxied("POST", service, "/v1/embeddings", body, _TIMEOUT_S) as response:
        content = response.read(_MAX_BYTES)
    try:
        vector = json.loads(content)["data"][0]["embedding"]
    except (ValueError, LookupError, TypeError) as error:
        raise EngineFailed("The engine's answer holds no embedding.") from error
    if not vector:
        raise EngineFailed("The engine's answer is an empty embedding.")
    return Answer(_since_ms(started), _since_ms(started), 0, "")


def _answer(response: Any, started: float) -> Answer:
    first_ms, tokens, text = None, 0, ""
    for event in _events(response):
        if "error" in event:
            raise EngineFailed(f"The engine answered with an error: {str(event['error'])[:200]}")
        content = _content(event)
        if content:
            first_ms = first_ms or _since_ms(started)
            text, tokens = text + content, tokens + 1
        tokens = (event.get("usage") or {}).get("completion_tokens") or tokens
    if first_ms is None:
        raise EngineFailed("The engine sent no token in answer to a question.", next_action="Look at its pod's log.")
    return Answer(first_ms, _since_ms(started), int(tokens), text[:500])


def _since_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def _content(event: dict[str, Any]) -> str:
    choice = (event.get("choices") or [{}])[0]
    delta = choice.get("delta") or choice
    # Reasoning models stream their thinking first; it is output all the same.
    return str(delta.get("content") or delta.get("reasoning_content") or delta.get("text") or "")


def _events(response: Any) -> Iterator[dict[str, Any]]:
    """Server-sent events up to ``[DONE]``."""
    for line in _lines(response):
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        if line.startswith("data:"):
            try:
                event = json.loads(data)
            except ValueError as error:
                raise EngineFailed("The engine's answer is not a stream of JSON events.") from error
            if isinstance(event, dict):
                yield event


def _lines(response: Any) -> Iterator[str]:
    """Lines as they arrive, of at most ``_MAX_BYTES`` in all."""
    rest, size = b"", 0
    for chunk in response.stream(1024, decode_content=True):
        size += len(chunk)
        if size > _MAX_BYTES:
            raise EngineFailed("The engine's answer to a short question has no end.")
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    yield rest.decode(errors="replace")


def requests_in_flight(kube: Kube, service: str) -> int:
    """Requests that run or wait, by the engine's own metrics; the proxy shows one of the replicas."""
    with kube.proxied("GET", service, "/metrics", None, _METRICS_TIMEOUT_S) as response:
        text = response.read(_MAX_BYTES).decode(errors="replace")
    values = [line.rsplit(" ", 1)[-1] for line in text.splitlines() if line.startswith(_RUNNING)]
    return sum(int(float(value)) for value in values)


def source(kube: Kube, service: str) -> str:
    """``twin`` for an engine that says that it only simulates one, else ``live``."""
    with kube.proxied("GET", service, "/health", None, _METRICS_TIMEOUT_S) as response:
        return "twin" if response.headers.get("x-foundry-source") == "twin" else "live"
