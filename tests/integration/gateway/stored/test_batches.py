"""Batches run by gateways: through the pipeline, in parts, and on from where a gateway was killed."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest
from foundry_core.clock import fixed

from ..conftest import until
from .control_plane import Plane
from .runs import CHAT, INPUT, LINES, Engine, ended, jsonl, line, running, said


async def test_every_line_is_answered_once_and_metered_as_the_keys(
    served: Plane, tmp_path: Path, engine: Engine
) -> None:
    batch_id = served.order(INPUT)
    engine.act = lambda number: said(400, {"error": {"code": "bad"}}) if number == 7 else None
    async with running(served, tmp_path, engine) as run:
        done = await ended(served, batch_id)
    assert (done.status, done.errors) == ("completed", None)
    assert done.request_counts.model_dump() == {"total": LINES, "completed": LINES - 1, "failed": 1}
    output, [error] = served.lines(done.output_file_id), served.lines(done.error_file_id)
    assert [one["custom_id"] for one in output] == [f"line-{n}" for n in range(LINES) if n != 7]
    first = output[0]
    assert (first["response"]["status_code"], first["error"]) == (200, None)
    assert first["response"]["body"]["choices"][0]["message"]["content"] == "0\n"
    assert first["response"]["request_id"] == f"{batch_id}.0"
    assert (error["custom_id"], error["response"]["status_code"]) == ("line-7", 400)
    assert len(run.rows) == LINES == len(engine.asked)
    assert {(row.key_id, row.project_id, row.route) for row in run.rows} == {(served.key_id, served.project, CHAT)}
    assert {row.cost_nanos for row in run.rows if row.status == 200} == {5 * 10 + 2 * 30}


async def test_after_a_kill_another_gateway_goes_on_behind_the_last_report(
    served: Plane, tmp_path: Path, engine: Engine
) -> None:
    batch_id = served.order(INPUT)

    def killed_before_the_second_part_is_reported(request: httpx.Request) -> None:
        """It is stored, but nobody hears of it."""
        served.transport.away = served.transport.away or b'"done_lines":40' in request.content

    served.transport.before = killed_before_the_second_part_is_reported
    async with running(served, tmp_path, engine) as first:
        await until(lambda: served.transport.away)
        for task in list(first.gateway.batches.runs):
            task.cancel()
        await asyncio.gather(*first.gateway.batches.runs, return_exceptions=True)
        served.transport.before = lambda request: None
        served.transport.away = False
        assert served.batch(batch_id).status == "in_progress"
        served.silence(batch_id)
        second_engine = Engine()
        async with running(served, tmp_path, second_engine, "gw-2") as second:
            done = await ended(served, batch_id)
    assert sorted(engine.asked) == list(range(40)) and sorted(second_engine.asked) == list(range(20, LINES))
    assert [one["custom_id"] for one in served.lines(done.output_file_id)] == [f"line-{n}" for n in range(LINES)]
    assert done.status == "completed" and done.request_counts.completed == LINES
    twice = {row.request_id for row in first.rows} & {row.request_id for row in second.rows}
    assert twice == {f"{batch_id}.{number}" for number in range(20, 40)}


async def test_what_is_not_sound_is_told_by_line_and_nothing_is_asked(
    served: Plane, tmp_path: Path, engine: Engine
) -> None:
    wrong = jsonl(line(0), line(0), line(2, url="/v1/models")) + b"\n{nope\n"
    batch_id = served.order(wrong)
    async with running(served, tmp_path, engine):
        failed = await ended(served, batch_id)
    assert (failed.status, engine.asked) == ("failed", [])
    assert [(error.code, error.line) for error in failed.errors.data] == [
        ("duplicate_custom_id", 2), ("invalid_url", 3), ("invalid_json_line", 4),
    ]  # fmt: skip


async def test_a_line_that_is_refused_for_now_is_asked_again(served: Plane, tmp_path: Path, engine: Engine) -> None:
    batch_id = served.order(jsonl(line(0), line(1)))

    def busy(number: int) -> httpx.Response | None:
        again = number == 1 and engine.asked.count(1) < 3
        return said(429, {"error": {"code": "rate_limit_exceeded"}}, **{"retry-after": "7"}) if again else None

    engine.act = busy
    async with running(served, tmp_path, engine) as run:
        done = await ended(served, batch_id)
    assert done.request_counts.completed == 2 and engine.asked.count(1) == 3
    assert run.waits == [7.0, 7.0]


async def test_what_no_line_can_hold_and_what_never_gets_better_are_errors(
    served: Plane, tmp_path: Path, engine: Engine
) -> None:
    batch_id = served.order(jsonl(*(line(number) for number in range(4))))
    odd = {0: b'{"a": "\xff"}', 1: b"data: x\n\n"}
    engine.act = lambda number: (
        said(200, odd[number]) if number in odd
        else said(503, {"error": {"code": "overloaded"}}) if number == 2 else None
    )  # fmt: skip
    async with running(served, tmp_path, engine) as run:
        done = await ended(served, batch_id)
    assert [one["custom_id"] for one in served.lines(done.output_file_id)] == ["line-3"]
    responses = [one["response"] for one in served.lines(done.error_file_id)]
    found = [(one["status_code"], one["body"]["error"]["code"]) for one in responses]
    assert found == [(502, "upstream_invalid"), (502, "upstream_invalid"), (503, "overloaded")]
    assert engine.asked.count(2) == 9 and sum(run.waits) == 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60


async def test_when_the_budget_is_used_up_the_rest_are_errors_that_say_so(
    served: Plane, tmp_path: Path, engine: Engine
) -> None:
    served.limit_key(budget_nanos=1)
    batch_id = served.order(jsonl(line(0), line(1)))
    async with running(served, tmp_path, engine):
        done = await ended(served, batch_id)
    assert (done.status, done.output_file_id, engine.asked) == ("completed", None, [])
    codes = [one["response"]["body"]["error"]["code"] for one in served.lines(done.error_file_id)]
    assert codes == ["insufficient_quota"] * 2 and done.request_counts.failed == 2


async def test_a_cancelled_batch_keeps_what_is_done(served: Plane, tmp_path: Path, engine: Engine) -> None:
    from functions.app.services import batches

    batch_id = served.order(INPUT)
    engine.gate.clear()
    async with running(served, tmp_path, engine):
        await until(lambda: len(engine.asked) == 4)  # so many are under way at a time
        assert batches.cancel(served.project, batch_id).status == "cancelling"
        engine.gate.set()
        done = await ended(served, batch_id)
    assert (done.status, done.request_counts.completed, len(engine.asked)) == ("cancelled", 20, 20)
    assert len(served.lines(done.output_file_id)) == 20


async def test_a_gateway_is_heard_of_while_lines_take_long_and_hears_of_a_cancel(
    served: Plane, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from functions.app.services import batches

    monkeypatch.setattr("gateway.batch_run.BEAT_S", 0.01)
    batch_id = served.order(INPUT)
    engine.gate.clear()
    seen = served.transport.seen
    async with running(served, tmp_path, engine):
        await until(lambda: len(engine.asked) == 4)
        batches.cancel(served.project, batch_id)
        before = len(seen)
        await until(lambda: len(seen) > before + 2)  # one whole report at least
        engine.gate.set()
        done = await ended(served, batch_id)
    assert (done.status, done.request_counts.completed, len(engine.asked)) == ("cancelled", 4, 4)


async def test_an_expired_batch_is_ended_without_asking(served: Plane, tmp_path: Path, engine: Engine) -> None:
    with fixed(int((time.time() - 25 * 3600) * 1000)):
        batch_id = served.order(jsonl(line(0), line(1)))
    async with running(served, tmp_path, engine):
        done = await ended(served, batch_id)
    assert (done.status, engine.asked) == ("expired", [])
    assert [one["error"]["code"] for one in served.lines(done.error_file_id)] == ["batch_expired"] * 2


async def test_a_deleted_key_stops_its_batch(served: Plane, tmp_path: Path, engine: Engine) -> None:
    from foundry_core.principal import Principal

    from functions.app.services import keys

    batch_id = served.order(INPUT)
    engine.gate.clear()
    async with running(served, tmp_path, engine) as run:
        await until(lambda: len(engine.asked) == 4)
        keys.delete(served.project, served.key_id, Principal("u", "u@example.com", frozenset()))
        run.gateway.take((await run.gateway.control.config()) or b"")
        engine.gate.set()
        done = await ended(served, batch_id)
    assert (done.status, done.errors.data[0].code, len(engine.asked)) == ("failed", "invalid_api_key", 4)
    assert len(served.lines(done.output_file_id)) == 4


async def test_a_gateway_that_stops_leaves_the_batch_to_others(served: Plane, tmp_path: Path, engine: Engine) -> None:
    batch_id = served.order(INPUT)
    engine.gate.clear()
    async with running(served, tmp_path, engine) as first:
        await until(lambda: len(engine.asked) == 4)
    assert {row.outcome for row in first.rows} == {"cancelled"} and len(first.rows) == 4
    other = Engine()
    async with running(served, tmp_path, other):
        done = await ended(served, batch_id)
    assert (done.status, sorted(other.asked)) == ("completed", list(range(LINES)))


async def test_lines_wait_while_live_requests_fill_the_deployment(
    served: Plane, tmp_path: Path, engine: Engine
) -> None:
    batch_id = served.order(jsonl(line(0)))
    async with running(served, tmp_path, engine) as run:
        assert run.gateway.policy.snapshot is not None
        [deployment] = run.gateway.policy.snapshot.deployments.values()
        deployment.outstanding += 4
        await until(lambda: len(run.waits) > 10)
        assert engine.asked == []
        deployment.outstanding -= 4
        assert (await ended(served, batch_id)).status == "completed"


@pytest.mark.parametrize("form", ["hot"])
async def test_clients_make_see_and_cancel_batches(stranger: str, http: httpx.AsyncClient, plane: Plane) -> None:
    order = {"input_file_id": plane.upload(b"{}"), "endpoint": CHAT, "completion_window": "24h"}
    made = (await http.post("/v1/batches", json={**order, "metadata": {"a": "b"}})).raise_for_status().json()
    assert (made["object"], made["status"], made["metadata"]) == ("batch", "validating", {"a": "b"})
    one = f"/v1/batches/{made['id']}"
    assert (await http.get(one)).json() == made == (await http.get("/v1/batches")).json()["data"][0]
    theirs = {"authorization": f"Bearer {stranger}"}
    for method, path in (("GET", one), ("POST", f"{one}/cancel")):
        assert (await http.request(method, path, headers=theirs)).json()["error"]["code"] == "not_found"
    assert (await http.post("/v1/batches", json=order, headers=theirs)).status_code == 404  # the file is not theirs
    assert (await http.post(f"{one}/cancel")).json()["status"] == "cancelled"
    assert (await http.post(f"{one}/cancel")).json()["error"]["code"] == "invalid_request"
    for wrong in ({}, [], {**order, "endpoint": "/v1/models"}, {**order, "completion_window": "1s"},
                  {**order, "metadata": {"a": 1}}, {**order, "metadata": {"a" * 99: ""}},
                  {**order, "input_file_id": "../x"}):  # fmt: skip
        answer = await http.post("/v1/batches", json=wrong)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), wrong
    assert (await http.post("/v1/batches", content=b"x" * 70_000)).status_code == 413
