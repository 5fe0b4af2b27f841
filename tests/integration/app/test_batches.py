"""Batches: what clients see of them, and how gateways share their work by claims that end."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from foundry_core import aws
from foundry_core.clock import fixed

from functions.app.services.batch_runs import LATE_S, MAX_CLAIMS

Call = Callable[..., Any]
NOW_MS = 1_800_000_000_000
MINUTE_MS = 60_000
CHAT = "/v1/chat/completions"


@pytest.fixture
def key(call: Call, project: str) -> str:
    return str(call("POST", f"/projects/{project}/keys", {"name": "one"}).ok(201)["id"])


@pytest.fixture
def order(gateway: Call, project: str, key: str, bucket: str) -> dict[str, Any]:
    """What makes a batch of a file that is there."""
    files = f"/gateway/projects/{project}/files"
    with fixed(NOW_MS):
        made = gateway("POST", files, {"key_id": key, "filename": "in.jsonl", "bytes": 300}).ok(201)["file"]
        gateway("POST", f"{files}/{made['id']}/arrived").ok()
    return {"key_id": key, "address": "203.0.113.9", "input_file_id": made["id"], "endpoint": CHAT,
            "completion_window": "24h"}  # fmt: skip


@pytest.fixture
def batches(project: str) -> str:
    return f"/gateway/projects/{project}/batches"


@pytest.fixture
def batch(gateway: Call, batches: str, order: dict[str, Any]) -> str:
    with fixed(NOW_MS):
        return str(gateway("POST", batches, order).ok(201)["id"])


def claim(gateway: Call, at_ms: int = NOW_MS + 1) -> Any:
    with fixed(at_ms):
        return gateway("POST", "/gateway/batches/claim", {"gateway_id": "pod-1"}).ok()["claim"]


class Runner:
    """What a gateway says of the batch that it claimed."""

    def __init__(self, gateway: Call, claimed: dict[str, Any]) -> None:
        self.gateway = gateway
        self.id = claimed["batch"]["id"]
        self.sender = {"project_id": claimed["project_id"], "claim_id": claimed["claim_id"]}

    def report(self, at_ms: int = NOW_MS + 2, **said: Any) -> Any:
        with fixed(at_ms):
            return self.gateway("POST", f"/gateway/batches/{self.id}/report", self.sender | said)

    def part(self, **asked: Any) -> Any:
        sound = {"kind": "output", "first_line": 0, "bytes": 10}
        with fixed(NOW_MS + 2):
            return self.gateway("POST", f"/gateway/batches/{self.id}/parts", self.sender | sound | asked)


@pytest.fixture
def runner(gateway: Call, batch: str) -> Runner:
    return Runner(gateway, claim(gateway))


def seen(gateway: Call, batches: str, batch: str, at_ms: int = NOW_MS + 3) -> dict[str, Any]:
    with fixed(at_ms):
        found: dict[str, Any] = gateway("GET", f"{batches}/{batch}").ok()
    return found


def test_a_batch_has_the_shape_of_openai(gateway: Call, batches: str, order: dict[str, Any]) -> None:
    with fixed(NOW_MS):
        made = gateway("POST", batches, {**order, "metadata": {"a": "b"}}).ok(201)
        assert gateway("GET", batches).ok()["data"] == [made] == [gateway("GET", f"{batches}/{made['id']}").ok()]
    assert made.items() >= {
        "object": "batch", "endpoint": CHAT, "status": "validating", "created_at": NOW_MS // 1000, "errors": None,
        "expires_at": NOW_MS // 1000 + 86_400, "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "output_file_id": None, "metadata": {"a": "b"}, "completion_window": "24h",
    }.items()  # fmt: skip
    assert "key_id" not in made and "address" not in made


def test_a_malformed_order_is_refused(gateway: Call, batches: str, order: dict[str, Any]) -> None:
    changes: list[dict[str, Any]] = [
        {"endpoint": "/v1/models"}, {"completion_window": "1h"}, {"input_file_id": "a/b"}, {"metadata": {"a": 1}},
        {"metadata": {"a" * 65: ""}}, {"metadata": {str(n): "" for n in range(17)}}, {"address": "a" * 65},
    ]  # fmt: skip
    for change in changes:
        gateway("POST", batches, {**order, **change}).problem(422, "invalid_request")


def test_a_batch_needs_a_file_and_a_key_of_its_project(
    call: Call, gateway: Call, batches: str, order: dict[str, Any]
) -> None:
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    with fixed(NOW_MS):
        gateway("POST", batches, {**order, "input_file_id": "file_x"}).problem(404, "file_not_found")
        gateway("POST", batches, {**order, "key_id": "key_x"}).problem(404, "key_not_found")
        gateway("POST", f"/gateway/projects/{other}/batches", order).problem(404, "key_not_found")


def test_another_projects_batch_does_not_exist(call: Call, gateway: Call, batch: str) -> None:
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    gateway("GET", f"/gateway/projects/{other}/batches/{batch}").problem(404, "batch_not_found")
    gateway("POST", f"/gateway/projects/{other}/batches/{batch}/cancel").problem(404, "batch_not_found")


def test_gateways_hear_of_waiting_batches_with_the_config(gateway: Call, batch: str) -> None:
    def heard(at_ms: int) -> str:
        with fixed(at_ms):
            tag = {"if-none-match": gateway("GET", "/gateway/config").headers["etag"]}
            return str(gateway("GET", "/gateway/config", headers=tag).headers["x-foundry-batches"])

    assert heard(NOW_MS + 1) == "waiting"
    claim(gateway)
    assert heard(NOW_MS + 2) == "none"
    assert heard(NOW_MS + 2 + MINUTE_MS) == "waiting"


def test_the_config_does_not_wait_for_the_index(gateway: Call, batch: str, caplog: pytest.LogCaptureFixture) -> None:
    deleted = [{"Delete": {"IndexName": "gsi1"}}]
    aws.client("dynamodb").update_table(TableName="foundry-test-app", GlobalSecondaryIndexUpdates=deleted)
    with fixed(NOW_MS + 1):
        answer = gateway("GET", "/gateway/config")
    assert answer.ok()["keys"] and answer.headers["x-foundry-batches"] == "none"
    assert "gateways do not look for batches" in caplog.text


def test_one_gateway_has_a_batch_until_it_falls_silent(gateway: Call, batch: str, runner: Runner) -> None:
    assert claim(gateway, NOW_MS + MINUTE_MS) is None
    assert runner.report(NOW_MS + MINUTE_MS, total=9).ok()["go_on"]
    assert claim(gateway, NOW_MS + 2 * MINUTE_MS - 1) is None
    other = Runner(gateway, claim(gateway, NOW_MS + 2 * MINUTE_MS + 1))
    runner.report(NOW_MS + 2 * MINUTE_MS + 2, done_lines=5).problem(409, "claim_lost")
    runner.part().problem(409, "claim_lost")
    assert other.id == batch and other.part().ok()["headers"]["content-length"] == "10"


def test_another_gateway_goes_on_where_the_last_report_was(
    gateway: Call, batches: str, batch: str, runner: Runner
) -> None:
    half = {"total": 9, "done_lines": 4, "done_bytes": 120, "output_bytes": 50, "error_bytes": 7, "completed": 3,
            "failed": 1}  # fmt: skip
    runner.report(**half).ok()
    runner.report(**half).ok()  # its answer was lost
    again = claim(gateway, NOW_MS + 2 * MINUTE_MS)
    assert (again["done_lines"], again["done_bytes"], again["input_bytes"]) == (4, 120, 300)
    assert again["batch"]["request_counts"] == {"total": 9, "completed": 3, "failed": 1}
    rest = {"first_line": 4, "done_lines": 9, "done_bytes": 300, "output_bytes": 60, "completed": 8, "failed": 1}
    end_ms = NOW_MS + 2 * MINUTE_MS + 1
    assert Runner(gateway, again).report(end_ms, **rest, outcome="completed").ok()["closed"]
    done = seen(gateway, batches, batch, end_ms)
    assert done["status"] == "completed" and done["completed_at"] == end_ms // 1000
    files = batches.replace("/batches", "/files")
    with fixed(end_ms):
        output = gateway("GET", f"{files}/{done['output_file_id']}/content").ok()
        assert (output["file"]["bytes"], output["file"]["purpose"], len(output["urls"])) == (110, "batch_output", 2)
        assert gateway("GET", f"{files}/{done['error_file_id']}").ok()["bytes"] == 7
        wrong = {"key_id": again["key_id"], "address": "", "input_file_id": output["file"]["id"], "endpoint": CHAT}
        gateway("POST", batches, {**wrong, "completion_window": "24h"}).problem(422, "invalid_request")
    assert claim(gateway, end_ms + 10 * MINUTE_MS) is None


def test_parts_lie_in_the_batchs_own_place(runner: Runner, batch: str, project: str) -> None:
    upload = runner.part(kind="error", first_line=100).ok()
    assert f"/files/{project}/{batch}/error-00100-" in urlsplit(upload["url"]).path
    for change in ({"kind": "../x"}, {"first_line": -1}, {"bytes": 0}, {"bytes": 2**40}, {"claim_id": "a/b"}):
        runner.part(**change).problem(422, "invalid_request")


def test_a_waiting_batch_is_cancelled_at_once(gateway: Call, batches: str, batch: str) -> None:
    with fixed(NOW_MS + 1):
        assert gateway("POST", f"{batches}/{batch}/cancel").ok()["status"] == "cancelled"
        gateway("POST", f"{batches}/{batch}/cancel").problem(409, "batch_closed")
    assert claim(gateway) is None


def test_one_that_runs_is_cancelled_by_the_gateway_that_runs_it(
    gateway: Call, batches: str, batch: str, runner: Runner
) -> None:
    with fixed(NOW_MS + 2):
        assert gateway("POST", f"{batches}/{batch}/cancel").ok()["status"] == "cancelling"
    told = runner.report(total=2).ok()
    assert (told["go_on"], told["closed"]) == (False, False)
    runner.report(done_lines=1, done_bytes=10, output_bytes=10, completed=1, outcome="cancelled").ok()
    done = seen(gateway, batches, batch)
    assert done["status"] == "cancelled" and done["output_file_id"] and done["cancelling_at"] and done["cancelled_at"]


def test_a_cancelled_batch_whose_gateway_is_gone_is_closed_by_the_next(
    gateway: Call, batches: str, batch: str, runner: Runner
) -> None:
    with fixed(NOW_MS + 2):
        gateway("POST", f"{batches}/{batch}/cancel").ok()
    assert claim(gateway, NOW_MS + 2 * MINUTE_MS) is None
    assert seen(gateway, batches, batch)["status"] == "cancelled"


def test_what_is_not_sound_fails_with_its_errors(gateway: Call, batches: str, batch: str, runner: Runner) -> None:
    error = {"code": "duplicate_custom_id", "message": "Twice.", "line": 3, "param": "custom_id"}
    runner.report(outcome="failed", errors=[error]).ok()
    failed = seen(gateway, batches, batch)
    assert (failed["status"], failed["errors"]) == ("failed", {"object": "list", "data": [error]})
    assert failed["output_file_id"] is None


def test_without_its_key_a_batch_stops(
    call: Call, gateway: Call, batches: str, batch: str, runner: Runner, project: str, key: str
) -> None:
    call("DELETE", f"/projects/{project}/keys/{key}").ok(204)
    told = runner.report(total=2, done_lines=1, done_bytes=10, output_bytes=10, completed=1).ok()
    assert told["closed"] and not told["go_on"]
    failed = seen(gateway, batches, batch)
    assert failed["errors"]["data"][0]["code"] == "invalid_api_key" and failed["output_file_id"]


def test_without_its_input_too(gateway: Call, batches: str, batch: str, order: dict[str, Any]) -> None:
    with fixed(NOW_MS):
        gateway("DELETE", f"{batches.replace('/batches', '/files')}/{order['input_file_id']}").ok()
    assert claim(gateway) is None
    assert seen(gateway, batches, batch)["errors"]["data"][0]["code"] == "input_file_gone"


def test_a_released_batch_is_another_gateways_at_once(gateway: Call, batch: str, runner: Runner) -> None:
    runner.report(total=2, outcome="released").ok()
    assert claim(gateway, NOW_MS + 3)["batch"]["id"] == batch


def test_deleting_an_output_takes_all_its_parts(
    gateway: Call, batches: str, batch: str, runner: Runner, bucket: str
) -> None:
    for first in (0, 1):
        url = runner.part(first_line=first).ok()["url"]
        name = urlsplit(url).path.lstrip("/").removeprefix(f"{bucket}/")
        aws.client("s3").put_object(Bucket=bucket, Key=name, Body=b"x" * 10)
        numbers = {"first_line": first, "done_lines": first + 1, "done_bytes": first + 1, "completed": first + 1}
        runner.report(total=2, output_bytes=10, outcome="completed" if first else None, **numbers).ok()
    output = seen(gateway, batches, batch)["output_file_id"]
    with fixed(NOW_MS + 3):
        gateway("DELETE", f"{batches.replace('/batches', '/files')}/{output}").ok()
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket=bucket, Prefix="files/")


def test_what_kills_its_gateways_is_given_up(gateway: Call, batches: str, batch: str) -> None:
    found = [claim(gateway, NOW_MS + tried * 2 * MINUTE_MS) for tried in range(MAX_CLAIMS + 1)]
    assert None not in found[:-1] and found[-1] is None
    failed = seen(gateway, batches, batch)
    assert (failed["status"], failed["errors"]["data"][0]["code"]) == ("failed", "batch_stuck")


def test_what_gets_further_is_not(gateway: Call, batch: str) -> None:
    for tried in range(MAX_CLAIMS + 1):
        at_ms = NOW_MS + tried * 2 * MINUTE_MS
        again = Runner(gateway, claim(gateway, at_ms))
        if tried == 1:
            again.report(at_ms, total=9, done_lines=1, done_bytes=9, output_bytes=9, completed=1).ok()


def test_a_batch_that_nobody_can_end_expires(gateway: Call, batches: str, batch: str, runner: Runner) -> None:
    end_ms = NOW_MS + 24 * 60 * MINUTE_MS
    assert runner.report(end_ms, total=9).ok()["go_on"]  # for it says of each line that it has expired
    assert runner.report(end_ms + LATE_S * 1000).ok()["closed"]
    assert seen(gateway, batches, batch, end_ms + LATE_S * 1000)["status"] == "expired"


def test_an_output_ends_where_no_item_could_hold_its_parts(
    gateway: Call, batches: str, batch: str, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("functions.app.services.batch_runs.MAX_PARTS", 2)
    one = {"total": 9, "output_bytes": 9}
    assert runner.report(**one, done_lines=1, done_bytes=9, completed=1).ok()["go_on"]
    assert runner.report(**one, first_line=1, done_lines=2, done_bytes=18, completed=2).ok()["closed"]
    failed = seen(gateway, batches, batch)
    assert failed["errors"]["data"][0]["code"] == "output_too_large" and failed["output_file_id"]


def test_the_end_of_its_project_ends_a_batch(call: Call, gateway: Call, batches: str, batch: str, project: str) -> None:
    call("DELETE", f"/projects/{project}").ok(204)
    assert claim(gateway) is None and seen(gateway, batches, batch)["status"] == "failed"


def test_a_project_has_so_many_open_batches(
    call: Call, gateway: Call, batches: str, batch: str, order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("functions.app.services.batches.MAX_OPEN", 1)
    with fixed(NOW_MS):
        gateway("POST", batches, order).problem(409, "too_many_batches")
        gateway("POST", f"{batches}/{batch}/cancel").ok()
        gateway("POST", batches, order).ok(201)
        other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
        theirs = {"key_id": call("POST", f"/projects/{other}/keys", {"name": "one"}).ok(201)["id"]}
        file = {**theirs, "filename": "in.jsonl", "bytes": 300}
        theirs["input_file_id"] = gateway("POST", f"/gateway/projects/{other}/files", file).ok(201)["file"]["id"]
        gateway("POST", f"/gateway/projects/{other}/files/{theirs['input_file_id']}/arrived").ok()
        gateway("POST", f"/gateway/projects/{other}/batches", order | theirs).ok(201)
