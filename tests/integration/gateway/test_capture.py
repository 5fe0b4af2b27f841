"""What is asked and answered is kept for the projects that are set so, and for no other."""

import gzip
import json
from typing import Any

import pytest
from gateway.capture import CAPTURED_BYTES, WAITING_BATCHES, Captures
from gateway.core.shapes import Captured
from gateway.core.snapshot import BrokenSnapshot, load


async def captured(stack: Any, project_id: str = "prj_1") -> list[dict[str, Any]]:
    for spool in stack.gateway.extras.captures._spools.values():
        spool.seal()
        while spool.waiting:
            await spool.flush_one()
    records: list[dict[str, Any]] = stack.stand_in.captured(project_id)
    return records


@pytest.fixture
async def capturing(stack: Any) -> Any:
    await stack.reconfigure(projects=[{"id": "prj_1", "capture_bodies": True}])
    return stack


@pytest.mark.parametrize("stream", [False, True])
async def test_both_bodies_are_kept_as_the_client_saw_them(capturing: Any, stream: bool) -> None:
    response = await capturing.chat(stream=stream)
    [row] = await capturing.rows(1)
    [record] = await captured(capturing)
    assert record["response"] == response.text and json.loads(record["request"])["model"] == "llama"
    assert record["response_bytes"] == len(response.content) and record["status"] == 200
    assert {name: record[name] for name in ("event_id", "request_id", "project_id", "outcome")} == {
        name: row[name] for name in ("event_id", "request_id", "project_id", "outcome")
    }


async def test_other_projects_and_projects_that_are_not_set_so_are_not_kept(capturing: Any) -> None:
    assert (await capturing.chat(key="sk-test-2", model="other")).status_code == 200
    await capturing.reconfigure(projects=[])
    assert (await capturing.chat()).status_code == 200
    assert not await captured(capturing) and not await captured(capturing, "prj_2")


async def test_long_bodies_are_cut_and_say_so(capturing: Any) -> None:
    text = "x" * (2 * CAPTURED_BYTES)
    await capturing.chat(messages=[{"role": "user", "content": text}])
    [record] = await captured(capturing)
    assert len(record["request"]) == CAPTURED_BYTES < record["request_bytes"]


async def test_keys_are_not_kept(capturing: Any) -> None:
    await capturing.chat()
    await captured(capturing)
    kept = b"".join(gzip.decompress(c) for n, c in capturing.stand_in.batches.items() if n.startswith("captures/"))
    assert b"sk-test" not in kept and b"key_1" in kept


async def test_records_wait_on_disk_and_are_bounded(tmp_path: Any) -> None:
    async def away(*batch: Any) -> None:
        raise OSError

    captures = Captures(tmp_path, "boot", away)
    record = Captured("e", 1, "prj_1", "k", "m", "/v1/x", 200, "ok", "r", "ask", 3, "answer", 6)
    for _ in range(WAITING_BATCHES + 2):
        captures.add(record)
        captures._spools["prj_1"].seal()
    assert captures.dropped == 2
    await captures.close()
    assert len(list(tmp_path.glob("prj_1/*.rows"))) == WAITING_BATCHES
    sent: list[str] = []

    async def here(project_id: str, batch_id: str, rows: int, data: bytes) -> None:
        sent.append(project_id)

    following = Captures(tmp_path, "boot2", here)
    following.start()
    await following.close()
    assert sent == ["prj_1"] * WAITING_BATCHES and not list(tmp_path.glob("prj_1/*.rows"))


def test_a_project_that_is_no_file_name_is_refused() -> None:
    config = {"version": 1, "keys": [], "endpoints": [], "projects": [{"id": "../x", "capture_bodies": True}]}
    with pytest.raises(BrokenSnapshot):
        load(json.dumps(config).encode())
