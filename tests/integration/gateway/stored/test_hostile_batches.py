"""Batches that are to keep a gateway busy for ever, to hide lines from its check, or to cost more than they answer."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest
from foundry_core.clock import fixed
from gateway.batch_line import MAX_WAIT_S, Answer
from gateway.batch_run import PAUSE_S

from functions.app.services import batches

from ..conftest import until
from .control_plane import Plane
from .runs import INPUT, LINES, Engine, ended, jsonl, line, running, said

LIMITED = b'{"error":{"code":"rate_limit_exceeded"}}'


async def test_what_a_provider_says_of_its_own_key_is_an_answer(served: Plane, tmp_path: Path, engine: Engine) -> None:
    batch_id = served.order(jsonl(line(0), line(1)))
    engine.act = lambda number: said(401, {"error": {"code": "invalid_api_key"}}) if number == 0 else None
    async with running(served, tmp_path, engine):
        done = await ended(served, batch_id)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 1, 1)
    assert engine.asked.count(0) == 1


async def test_a_line_beyond_the_whole_limit_is_an_error_at_once(served: Plane, tmp_path: Path, engine: Engine) -> None:
    served.limit_key(tokens_per_minute=5_000)
    large = line(0)
    large["body"]["max_tokens"] = 6_000
    batch_id = served.order(jsonl(large, line(1, body={**line(1)["body"], "max_tokens": 10})))
    async with running(served, tmp_path, engine) as run:
        done = await ended(served, batch_id)
    [error] = served.lines(done.error_file_id)
    assert (error["custom_id"], error["response"]["body"]["error"]["code"]) == ("line-0", "rate_limit_exceeded")
    assert (engine.asked, run.waits) == ([1], [])


def test_a_rate_limit_is_waited_for_all_day() -> None:
    answer = Answer("batch_1.0")
    answer.status, answer.body, answer.retry_after_s = 429, LIMITED, 1.0
    assert answer.wait_s(2000) == MAX_WAIT_S


async def test_a_line_that_waits_for_tomorrow_hears_of_a_cancel(
    served: Plane, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.batch_run.BEAT_S", 0.01)
    tomorrow = {"retry-after": "9" * 400}
    limited = {"error": {"code": "rate_limit_exceeded"}}
    engine.act = lambda number: said(429, limited, **tomorrow) if number else None
    waits, over = list[float](), asyncio.Event()

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        await over.wait()

    async with running(served, tmp_path, engine) as run:
        run.gateway.batches.sleep = sleep
        batch_id = served.order(jsonl(line(0), line(1)))
        run.wake()
        await until(lambda: len(waits) == 1)
        batches.cancel(served.project, batch_id)
        before = len(served.transport.seen)
        await until(lambda: len(served.transport.seen) > before + 2)  # one whole report at least
        over.set()
        done = await ended(served, batch_id)
    assert (done.status, done.request_counts.completed, waits) == ("cancelled", 1, [PAUSE_S])
    assert engine.asked.count(1) == 1


async def test_a_stop_while_the_input_is_looked_at_fails_nothing(
    served: Plane, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.control.PIECE_BYTES", 100)  # ends within the first line

    def stop(request: httpx.Request) -> None:
        if request.url.path.endswith("/input.jsonl"):
            [current] = first.gateway.batches.runs.values()
            current.stop()

    async with running(served, tmp_path, engine) as first:
        served.transport.before = stop
        batch_id = served.order(INPUT)
        first.wake()
        await until(lambda: f"POST /gateway/batches/{batch_id}/report" in served.transport.seen)
    found = served.batch(batch_id)
    assert (found.status, found.request_counts.total, engine.asked) == ("validating", 0, [])
    served.transport.before = lambda request: None
    async with running(served, tmp_path, engine):
        assert (await ended(served, batch_id)).request_counts.completed == LINES


async def test_a_line_that_waits_for_live_requests_expires(served: Plane, tmp_path: Path, engine: Engine) -> None:
    with fixed(int((time.time() - 25 * 3600) * 1000)):
        batch_id = served.order(jsonl(line(0)))
    async with running(served, tmp_path, engine) as run:
        assert run.gateway.policy.snapshot is not None
        [deployment] = run.gateway.policy.snapshot.deployments.values()
        deployment.outstanding += 4
        done = await ended(served, batch_id)
        deployment.outstanding -= 4
    assert (done.status, engine.asked) == ("expired", [])
