"""Sends traces to an OpenTelemetry collector: OTLP over HTTP, in its JSON encoding.

JSON and not protobuf, because the official exporter brings protobuf, requests and an SDK (more memory than the rest of
the gateway) for what is one POST. https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from gateway.core.shapes import Row
from gateway.core.trace import Attempt, Trace

log = logging.getLogger("gateway.otlp")
QUEUED = 4096  # traces; what comes while the queue is full is dropped and counted
BATCH = 32  # a few milliseconds of encoding
EVERY_S = 2.0
SERVER, CLIENT = 2, 3
ERROR = {"code": 2}
# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
OPERATIONS = {
    "/v1/chat/completions": "chat", "/v1/messages": "chat", "/v1/responses": "chat",
    "/v1/completions": "text_completion", "/v1/embeddings": "embeddings",
}  # fmt: skip
PROVIDERS = {
    "azure": "azure.ai.openai", "bedrock": "aws.bedrock", "gemini": "gcp.gemini", "mistral": "mistral_ai",
}  # fmt: skip


class Exporter:
    """A bounded queue and the task that empties it. Requests never wait for it; a batch that fails is not repeated."""

    def __init__(
        self, url: str, headers: Mapping[str, str], name: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/") + "/v1/traces"
        self.sent = self.dropped = 0
        self._queue: deque[Trace] = deque()
        self._headers = {**headers, "content-type": "application/json"}
        self._client = httpx.AsyncClient(timeout=5.0, transport=transport, trust_env=False)
        self._resource = {"attributes": attributes({"service.name": "foundry-gateway", "service.instance.id": name})}

    def add(self, trace: Trace) -> None:
        if len(self._queue) < QUEUED:
            self._queue.append(trace)
        else:
            self.dropped += 1

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            while self._queue:
                await self.send_batch()

    async def send_batch(self) -> None:
        """Send the oldest traces."""
        traces = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH))]
        try:
            response = await self._client.post(self.url, content=self._encode(traces), headers=self._headers)
            response.raise_for_status()
            self.sent += len(traces)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.dropped += len(traces)
            log.warning("%d traces are lost: %r", len(traces), error)

    async def close(self) -> None:
        """Send one last batch."""
        if self._queue:
            await self.send_batch()
        await self._client.aclose()

    def _encode(self, traces: list[Trace]) -> bytes:
        scope = {"scope": {"name": "gateway"}, "spans": [span for trace in traces for span in spans(trace)]}
        return msgspec.json.encode({"resourceSpans": [{"resource": self._resource, "scopeSpans": [scope]}]})


def spans(trace: Trace) -> list[dict[str, Any]]:
    """The request's span, and one of each attempt below it."""
    row = trace.row
    assert row is not None
    operation = OPERATIONS.get(row.route, row.route.removeprefix("/v1/").replace("/", "_"))
    shared = {"gen_ai.operation.name": operation, "gen_ai.request.model": trace.model}
    name = f"{operation} {trace.model}".rstrip()
    own = _span(trace, trace.span_id, trace.parent_id, f"POST {row.route}", SERVER, trace.arrived_s, trace.ended_s)
    own["attributes"] = attributes(shared | _of_row(row))
    if trace.first_s:
        own["events"] = [{"timeUnixNano": _nanos(trace, trace.first_s), "name": "first_byte"}]
    if row.status >= 500 or row.outcome in ("failed", "cut"):
        own["status"] = ERROR
    return [own, *(_of_attempt(trace, attempt, name, shared) for attempt in trace.attempts)]


def _of_attempt(trace: Trace, attempt: Attempt, name: str, shared: dict[str, Any]) -> dict[str, Any]:
    deployment, row = attempt.deployment, trace.row
    assert row is not None
    values = shared | {
        "gen_ai.provider.name": PROVIDERS.get(deployment.provider, deployment.provider),
        "gen_ai.response.model": deployment.model, "server.address": deployment.host, "server.port": deployment.port,
        "foundry.deployment_id": deployment.id, "http.response.status_code": attempt.status or None,
    }  # fmt: skip
    answered = attempt is trace.attempts[-1]
    if answered:
        values |= {
            "gen_ai.usage.input_tokens": row.input_tokens, "gen_ai.usage.output_tokens": row.output_tokens,
        }  # fmt: skip
    failed = attempt.status == 0 or attempt.status >= 500 or (answered and row.outcome == "cut")
    if failed:
        values["error.type"] = str(attempt.status or row.error_code or row.outcome)
    ended_s = attempt.ended_s or trace.ended_s
    span = _span(trace, attempt.span_id, trace.span_id, name, CLIENT, attempt.begun_s, ended_s)
    return span | {"attributes": attributes(values)} | ({"status": ERROR} if failed else {})


def _of_row(row: Row) -> dict[str, Any]:
    return {
        "http.request.method": "POST", "url.path": row.route, "http.response.status_code": row.status,
        "error.type": row.error_code or None, "gen_ai.usage.input_tokens": row.input_tokens,
        "gen_ai.usage.output_tokens": row.output_tokens, "foundry.request_id": row.request_id,
        "foundry.project_id": row.project_id, "foundry.key_id": row.key_id, "foundry.endpoint": row.endpoint,
        "foundry.outcome": row.outcome, "foundry.cost_nanos": row.cost_nanos, "foundry.retries": row.retries,
        "foundry.wasted_tokens": row.wasted_tokens, "foundry.ttft_ms": row.ttft_ms, "foundry.queue_ms": row.queue_ms,
    }  # fmt: skip


def _span(
    trace: Trace, span_id: str, parent_id: str, name: str, kind: int, begun_s: float, ended_s: float
) -> dict[str, Any]:
    return {
        "traceId": trace.trace_id, "spanId": span_id, "parentSpanId": parent_id, "name": name, "kind": kind,
        "startTimeUnixNano": _nanos(trace, begun_s), "endTimeUnixNano": _nanos(trace, ended_s),
    }  # fmt: skip


def _nanos(trace: Trace, at_s: float) -> str:
    assert trace.row is not None
    return str(trace.row.ts_ms * 1_000_000 + int((at_s - trace.arrived_s) * 1e9))


def attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """OTLP's list of typed values; 64-bit integers are strings in JSON. What is None is left out."""
    return [{"key": key, "value": _typed(value)} for key, value in values.items() if value is not None]


def _typed(value: Any) -> dict[str, Any]:
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}
