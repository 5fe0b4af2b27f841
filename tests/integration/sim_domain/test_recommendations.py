"""Daily recommendations and blocked configurations through the Lambda handlers."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from foundry_core import clock, runs
from foundry_core.runs import Run

from functions.sim.handler import daily
from functions.sim.tasks import tasks

Call = Callable[..., Any]
Drive = Callable[[str], Any]
BLOCKED = "/simulator/blocked"
RECOMMENDATIONS = "/simulator/recommendations"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
NOON_MS = 1_790_000_000_000  # 2026-09-21
DAY_MS = 24 * 3600 * 1000
H100 = {"name": "h100", "device": "h100_sxm", "nodes": 1, "devices_per_node": 8, "price_nanos_per_hour": None}
L40S = {"name": "l40s", "device": "l40s", "nodes": 1, "devices_per_node": 4, "price_nanos_per_hour": 100_000_000}
V100 = {"name": "v100", "device": "v100", "nodes": 1, "devices_per_node": 1, "price_nanos_per_hour": None}
CLUSTERS = [
    {"id": f"cls_{group['name']}", "name": group["name"], "device_groups": [group]} for group in (H100, L40S, V100)
]


@pytest.fixture
def page(config: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    models = [{"id": "mdl_1", "name": "llama", "config": config("llama-3.1-8b-instruct")}]
    return {"models": models, "seen": 1, "cursor": None, "left_out": []}


def step(run: Run, page: dict[str, Any], lambda_context: SimpleNamespace) -> Any:
    state = {"list_clusters": {"output": {"clusters": CLUSTERS, "left_out": [{"name": "gone", "reason": "failed"}]}},
             "list_models": {"output": page}}  # fmt: skip
    payload = {"task": "recommend", "step": "recommend", "run_id": run.id, "attempt": run.attempt, "input": state}
    return tasks.handler(payload, lambda_context)


def today(started: list[Run]) -> Run:
    daily({}, None)
    return started[-1]


def test_the_schedule_starts_one_run_a_day(started: list[Run], call: Call) -> None:
    with clock.fixed(NOON_MS):
        daily({}, None)
        daily({}, None)  # delivered twice
    with clock.fixed(NOON_MS + DAY_MS):
        daily({}, None)
    assert [(run.kind, run.subject_id) for run in started] == [("recommend", "2026-09-21"), ("recommend", "2026-09-22")]


def test_clusters_come_cheapest_first_with_date_and_versions(
    started: list[Run], page: dict[str, Any], call: Call, lambda_context: SimpleNamespace
) -> None:
    run = today(started)
    output = step(run, page, lambda_context)
    assert (output["status"], output["models"], output["clusters"]) == ("done", 1, 3)
    assert output["left_out"] == [{"name": "gone", "reason": "failed"}]
    [found] = call("GET", RECOMMENDATIONS).ok()["items"]
    assert (found["model_name"], found["workload_class"], found["day"]) == ("llama", "chat", run.subject_id)
    assert len(found["release"]) == 12 and found["prices_as_of"] and found["computed_at_ms"] > 0
    names = [choice["cluster_name"] for choice in found["choices"]]
    costs = [choice["cost_nanos_per_hour"] for choice in found["choices"]]
    assert names[0] == "l40s" and costs[:2] == sorted(costs[:2]) and found["choices"][0]["plan"]["device"] == "l40s"
    assert names[2] == "v100" and costs[2] is None and found["choices"][2]["explanation"]


def test_a_second_time_the_item_is_replaced(
    started: list[Run], page: dict[str, Any], call: Call, lambda_context: SimpleNamespace
) -> None:
    run = today(started)
    waiting = step(run, {**page, "cursor": "more"}, lambda_context)
    assert waiting["status"] == "waiting" and runs.get(run.id).step("recommend").status == "running"
    assert step(run, page, lambda_context)["status"] == "done"
    assert len(call("GET", RECOMMENDATIONS).ok()["items"]) == 1


def test_what_is_blocked_is_not_recommended(
    started: list[Run], page: dict[str, Any], call: Call, lambda_context: SimpleNamespace
) -> None:
    call("POST", BLOCKED, {"device": "l40s", "model": "llama", "reason": "runs out of memory"}).ok(201)
    step(today(started), page, lambda_context)
    [found] = call("GET", RECOMMENDATIONS).ok()["items"]
    without = next(choice for choice in found["choices"] if choice["cluster_name"] == "l40s")
    assert found["choices"][0]["cluster_name"] == "h100" and without["cost_nanos_per_hour"] is None


def test_a_person_may_refresh_them(started: list[Run], call: Call) -> None:
    run = call("POST", RECOMMENDATIONS).ok(202)["run"]
    assert run["kind"] == "recommend" and [one.id for one in started] == [run["id"]]
    call("POST", RECOMMENDATIONS, principal="developer").problem(403, "forbidden")


def test_blocked_configurations_are_kept_told_and_taken_back(call: Call, drive: Drive, body: dict[str, Any]) -> None:
    made = call("POST", BLOCKED, {"engine": "vllm", "device": "h100_sxm", "reason": "crashes at start"}).ok(201)
    other = call("POST", BLOCKED, {"engine": "sglang", "model": "another", "reason": "crashes"}).ok(201)
    assert [item["reason"] for item in call("GET", BLOCKED).ok()["items"]] == ["crashes at start", "crashes"]
    assert engines(call, drive, body) == {"sglang"}
    layouts = call("POST", "/projects/prj_1/simulator/node-configurations", body).ok()["items"]
    told = {item["blocked"] for item in layouts if (item["engine"], item["device"]) == ("vllm", "h100_sxm")}
    assert told == {"crashes at start"}
    for item in (made, other):
        assert call("DELETE", f"{BLOCKED}/{item['id']}").status == 204
    call("DELETE", f"{BLOCKED}/{made['id']}").problem(404, "blocked_not_found")
    assert "vllm" in engines(call, drive, body)


def engines(call: Call, drive: Drive, body: dict[str, Any]) -> set[str]:
    asked = {**body, "device_groups": [H100], "max_plans": 20}
    accepted = call("POST", "/projects/prj_1/simulations", asked).ok(202)
    assert drive(accepted["run"]["id"]).status == "succeeded"
    plans = call("GET", f"/projects/prj_1/simulations/{accepted['simulation']['id']}/plans").ok()["items"]
    return {plan["engine"] for plan in plans}


@pytest.mark.parametrize(
    ("asked", "code"), [({"device": "abacus"}, "unknown_device"), ({"engine": "steam"}, "simulation_invalid")]
)
def test_a_name_that_matches_nothing_is_refused(call: Call, asked: dict[str, Any], code: str) -> None:
    call("POST", BLOCKED, {**asked, "reason": "x"}).problem(422, code)


def test_a_device_is_kept_under_the_name_that_plans_use(call: Call) -> None:
    assert call("POST", BLOCKED, {"device": "H100-SXM", "reason": "x"}).ok(201)["device"] == "h100_sxm"


@pytest.mark.parametrize(
    "asked",
    [
        {"reason": "x"},
        {"tp": 0, "reason": "x"},
        {"engine": "", "reason": "x"},
        {"engine": "vllm"},
        {"engine": "vllm", "reason": ""},
        {"tp": 2, "reason": "x", "a": 1},
    ],
)
def test_a_block_says_what_and_why(call: Call, asked: dict[str, Any]) -> None:
    call("POST", BLOCKED, asked).problem(422, "invalid_request")


def test_the_number_of_blocks_is_bounded(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functions.sim.blocked.MAX_BLOCKED", 1)
    call("POST", BLOCKED, {"tp": 2, "reason": "x"}).ok(201)
    call("POST", BLOCKED, {"tp": 4, "reason": "x"}).problem(409, "too_many_blocked")
