"""Traces, access log, Server-Timing and metrics, in both forms of the gateway."""

import asyncio
import io
import json
import re
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from gateway.access_log import AccessLog
from gateway.core.shapes import Row
from gateway.core.trace import TRACEPARENT, Trace, Tracer
from gateway.otlp import BATCH, QUEUED, Exporter
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """An OpenTelemetry collector as far as OTLP/JSON traces go."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.authorization: list[str | None] = []
        self.resources: list[dict[str, Any]] = []

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/traces", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        assert request.headers["content-type"] == "application/json"
        self.authorization.append(request.headers.get("authorization"))
        for resource in (await request.json())["resourceSpans"]:
            self.resources.append(values(resource["resource"]))
            self.spans += [span for scope in resource["scopeSpans"] for span in scope["spans"]]
        return Response(b"{}", media_type="application/json")


def values(holder: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for attribute in holder["attributes"]:
        [(kind, value)] = attribute["value"].items()
        assert kind in ("stringValue", "intValue", "doubleValue") and isinstance(value, float | str)
        found[attribute["key"]] = int(value) if kind == "intValue" else value
    return found


@pytest.fixture
async def collector(serve: Any) -> AsyncIterator[Collector]:
    collector = Collector()
    async with serve(collector.app()) as collector.port:
        yield collector


@pytest.fixture
def gateway_settings(collector: Any) -> dict[str, Any]:
    return {
        "otlp_url": f"http://127.0.0.1:{collector.port}", "otlp_headers": ("authorization=Basic abc",),
        "trace_ratio": 0.0, "server_timing": True, "access_log": True,
    }  # fmt: skip


async def export(stack: Any, requests: int) -> None:
    await stack.rows(requests)
    exporter = stack.gateway.observability.exporter
    await exporter.send_batch()


def parent(flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-{flags}", "tracestate": "vendor=1"}


async def ask(stack: Any, headers: dict[str, str], **fields: Any) -> Any:
    body = {"model": "llama", "messages": [{"role": "user", "content": "top secret"}], **fields}
    return await stack.client.post("/v1/chat/completions", json=body, headers=stack.headers() | headers)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_sampled_trace_goes_on_in_the_gateway_and_in_the_engine(
    stack: Any, collector: Collector, stream: bool
) -> None:
    assert (await ask(stack, parent(), stream=stream)).status_code == 200
    await export(stack, 1)
    [own, attempt] = collector.spans
    assert (own["traceId"], own["parentSpanId"], own["kind"]) == (TRACE_ID, SPAN_ID, 2)
    assert (attempt["traceId"], attempt["parentSpanId"], attempt["kind"]) == (TRACE_ID, own["spanId"], 3)
    [seen] = [r for engine in stack.engines for r in engine.requests]
    assert seen.headers["traceparent"] == f"00-{TRACE_ID}-{attempt['spanId']}-01"
    assert seen.headers["tracestate"] == "vendor=1"
    assert attempt["name"] == "chat llama" and "status" not in own
    told, told_of_attempt = values(own), values(attempt)
    assert told["gen_ai.operation.name"] == "chat" and told["gen_ai.request.model"] == "llama"
    assert told["gen_ai.usage.input_tokens"] == 11 and told_of_attempt["gen_ai.usage.output_tokens"] == 3
    assert told["http.response.status_code"] == 200 and told["foundry.outcome"] == "ok"
    assert told_of_attempt["server.address"] == "127.0.0.1" and told_of_attempt["gen_ai.provider.name"] == "openai"
    times = [int(span[at]) for span in (own, attempt) for at in ("startTimeUnixNano", "endTimeUnixNano")]
    assert times[0] <= times[2] <= times[3] <= times[1] and times[0] > 1.7e18
    assert collector.authorization == ["Basic abc"]
    assert collector.resources[0]["service.name"] == "foundry-gateway"


async def test_every_attempt_has_a_span(stack: Any, collector: Collector) -> None:
    async def fail(engine: Any, request: Any, writer: Any) -> None:
        engine.answer(writer, {"error": "x"}, 503)

    stack.engines[0].script = stack.engines[1].script = fail
    assert (await ask(stack, parent())).status_code == 503
    await export(stack, 1)
    own, *attempts = collector.spans
    assert [values(a)["foundry.deployment_id"] for a in attempts] in (["dep_0", "dep_1"], ["dep_1", "dep_0"])
    assert all(a["parentSpanId"] == own["spanId"] and a["status"] == {"code": 2} for a in attempts)
    assert {values(a)["error.type"] for a in attempts} == {"503"} and own["status"] == {"code": 2}
    sent = {r.headers["traceparent"].split("-")[2] for engine in stack.engines for r in engine.requests}
    assert sent == {a["spanId"] for a in attempts}


async def test_what_is_not_sampled_passes_untouched(stack: Any, collector: Collector) -> None:
    assert (await ask(stack, parent("00"))).status_code == 200
    assert (await ask(stack, {})).status_code == 200
    await stack.rows(2)
    assert not stack.gateway.observability.exporter._queue and not collector.spans
    seen = [r.headers.get("traceparent") for engine in stack.engines for r in engine.requests]
    assert sorted(map(str, seen)) == sorted([parent("00")["traceparent"], "None"])


async def test_requests_do_not_suffer_when_the_collector_is_away(stack: Any) -> None:
    exporter = stack.gateway.observability.exporter
    exporter.url = "http://127.0.0.1:1/v1/traces"
    assert (await ask(stack, parent())).status_code == 200
    await export(stack, 1)
    assert (exporter.sent, exporter.dropped) == (0, 1)


async def test_the_access_log_has_every_request_and_no_secret(stack: Any) -> None:
    out = io.BytesIO()
    log = stack.gateway.observability.access_log = AccessLog(out)
    assert (await ask(stack, {})).status_code == 200
    assert (await ask(stack, {"authorization": "Bearer sk-wrong"})).status_code == 401
    rows = await stack.rows(2)
    await asyncio.to_thread(log.close)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == rows
    assert b"secret" not in out.getvalue() and b"sk-" not in out.getvalue() and b"hello" not in out.getvalue()


@pytest.mark.parametrize("stream", [False, True])
async def test_server_timing_says_where_the_time_went(stack: Any, stream: bool) -> None:
    response = await ask(stack, {}, stream=stream)
    timing = re.fullmatch(r"queue;dur=(\d+\.\d+), upstream;dur=(\d+\.\d+)", response.headers["server-timing"])
    assert timing is not None and float(timing[2]) > float(timing[1]) >= 0


async def test_metrics_are_complete_and_well_formed(stack: Any) -> None:
    await ask(stack, {}, stream=True)
    await ask(stack, {"authorization": "Bearer sk-wrong"})
    await stack.rows(2)
    stack.gateway.observability.loop_lag_s = 0.25
    text = (await stack.client.get("/metrics", headers={"authorization": "Bearer gateway-token"})).text
    sample = re.compile(r'[a-z_][a-z0-9_]*(\{([a-z]+="[^"\n]*",?)+\})? -?[0-9.e+-]+')
    lines = text.splitlines()
    assert all(line.startswith("# TYPE ") or sample.fullmatch(line) for line in lines), text
    families = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
    assert len(families) == len(set(families))
    names = {
        "requests_total", "retries_total", "cost_nanos_total", "tokens_total", "ttft_ms", "tpot_ms", "e2e_ms",
        "queue_ms", "config_version", "config_age_seconds", "config_refused_total", "metering_rows_total",
        "metering_batches_waiting", "control_plane_away", "requests_held", "open_connections", "loop_lag_seconds",
        "draining", "leases_open", "leases_short", "leases_free", "leases_held", "leases_ending", "outstanding",
        "breaker_open", "ejected", "traces_sent_total", "traces_dropped_total", "access_log_dropped_rows_total",
    }  # fmt: skip
    assert {f"foundry_gateway_{name}" for name in names} <= set(families)
    ok = 'endpoint="llama",status="200",outcome="ok"'
    assert f"foundry_gateway_requests_total{{{ok}}} 1" in lines
    assert f'foundry_gateway_requests_total{{endpoint="",status="401",outcome="rejected"}} 1' in lines  # noqa: F541
    assert f'foundry_gateway_tokens_total{{{ok},kind="output"}} 3' in lines
    assert f"foundry_gateway_cost_nanos_total{{{ok}}} 200" in lines
    assert f'foundry_gateway_tpot_ms_bucket{{{ok},le="+Inf"}} 1' in lines
    assert "foundry_gateway_loop_lag_seconds 0.25" in lines


async def test_breakers_and_leases_show_in_the_metrics(stack: Any) -> None:
    stack.config["keys"][0]["limits"] = {"budget_nanos": 10**9, "requests_per_minute": 1000}
    await stack.reconfigure()
    await ask(stack, {}, max_tokens=5)
    stack.gateway.policy.snapshot.deployments["dep_1"].open_until_s = 1e18
    text = (await stack.client.get("/metrics", headers={"authorization": "Bearer gateway-token"})).text
    assert 'foundry_gateway_breaker_open{deployment="dep_1"} 1' in text
    assert 'foundry_gateway_breaker_open{deployment="dep_0"} 0' in text
    assert 'foundry_gateway_leases_open{kind="money_nanos"} 1' in text
    assert 'foundry_gateway_leases_held{kind="requests"} 0' in text


# --- the parts alone ------------------------------------------------------------------------------------------------


@given(st.one_of(st.binary(max_size=60), st.from_regex(TRACEPARENT)))
def test_any_traceparent_is_taken_or_ignored(header: bytes) -> None:
    trace = Tracer(0.0, lambda trace: None).begin(header)
    sound = TRACEPARENT.fullmatch(header)
    assert (trace is not None) == (sound is not None and int(sound[3], 16) % 2 == 1)


@pytest.mark.parametrize(
    "header",
    [f"ff-{TRACE_ID}-{SPAN_ID}-01", f"00-{'0' * 32}-{SPAN_ID}-01", f"00-{TRACE_ID}-{'0' * 16}-01",
     f"00-{TRACE_ID.upper()}-{SPAN_ID}-01", f"00-{TRACE_ID}-{SPAN_ID}", ""],
)  # fmt: skip
def test_contexts_that_are_not_sound_are_none(header: str) -> None:
    assert Tracer(0.0, lambda trace: None).begin(header.encode()) is None


def test_the_ratio_of_requests_without_a_trace_is_kept() -> None:
    tracer = Tracer(0.2, lambda trace: None, seed=1)
    begun = [trace for _ in range(5000) if (trace := tracer.begin(b"")) is not None]
    assert 900 < len(begun) < 1100
    assert len({trace.trace_id for trace in begun}) == len(begun) and {len(t.trace_id) for t in begun} == {32}


async def test_the_exporters_queue_is_bounded() -> None:
    exporter = Exporter("http://127.0.0.1:1", {}, "x")
    trace = Trace(Tracer(1.0, exporter.add), TRACE_ID, "")
    trace.row = Row("e", 1, "g")
    for _ in range(QUEUED + 7):
        exporter.add(trace)
    assert exporter.dropped == 7
    await exporter.close()
    assert exporter.dropped == 7 + BATCH


def test_a_log_that_nobody_reads_drops_rows_and_blocks_nothing() -> None:
    gate = threading.Event()

    class Stuck(io.BytesIO):
        def write(self, data: Any) -> int:
            gate.wait()
            return super().write(data)

    out = Stuck()
    log = AccessLog(out)
    for number in range(3000):
        log.add(b"%d\n" % number)
    assert log.dropped >= 1900
    gate.set()
    log.close()
    assert len(out.getvalue().splitlines()) + log.dropped == 3000
