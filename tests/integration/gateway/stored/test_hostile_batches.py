"""Batches that are to keep a gateway busy for ever, to hide lines from its check, or to cost more than they answer."""

from pathlib import Path

from gateway.batch_line import MAX_WAIT_S, Answer

from .control_plane import Plane
from .runs import Engine, ended, jsonl, line, running, said

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
