"""Simulations through the Lambda handlers: plans with prices, and plain answers to what cannot be."""

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from foundry_core import runs

Call = Callable[..., Any]
Drive = Callable[[str], Any]
SIMULATIONS = "/projects/prj_1/simulations"


def simulated(call: Call, drive: Drive, body: dict[str, Any]) -> dict[str, Any]:
    accepted = call("POST", SIMULATIONS, body).ok(202)
    run = drive(accepted["run"]["id"])
    assert run.status == "succeeded", run.error
    found: dict[str, Any] = call("GET", f"{SIMULATIONS}/{accepted['simulation']['id']}").ok()
    return found


def plans_of(call: Call, simulation: dict[str, Any], **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = call("GET", f"{SIMULATIONS}/{simulation['id']}/plans", **query).ok()
    return found


def events() -> list[dict[str, Any]]:
    items = boto3.resource("dynamodb").Table("foundry-test-sim").scan()["Items"]
    return [json.loads(str(item["event"])) for item in items if item["kind"] == "outbox"]


def test_plans_meet_the_service_levels_cheapest_first(call: Call, drive: Drive, body: dict[str, Any]) -> None:
    answer = call("POST", SIMULATIONS, body)
    accepted = answer.ok(202)
    assert answer.headers["location"] == f"{SIMULATIONS}/{accepted['simulation']['id']}"
    assert accepted["simulation"]["status"] == "running" and accepted["run"]["kind"] == "simulate"
    run = drive(accepted["run"]["id"])
    assert run.result == {"simulation_id": accepted["simulation"]["id"], "feasible": True, "plan_count": 10}
    found = call("GET", answer.headers["location"]).ok()
    assert found["status"] == "completed" and found["feasible"] and found["outcome"]["considered"] > 10
    plans = plans_of(call, found)["items"]
    assert [plan["cost_nanos_per_hour"] for plan in plans] == sorted(plan["cost_nanos_per_hour"] for plan in plans)
    for plan in plans:
        assert plan["predicted"]["ttft_ms"]["mean"] <= 500 and plan["predicted"]["tokens_per_s_per_user"] >= 30
        assert plan["memory"]["weight_bytes"] > 0 and plan["cost_nanos_per_million_output_tokens"] > 0
    kinds = [event["type"] for event in events()]
    assert sorted(kinds) == ["foundry.simulation.completed.v1", "foundry.simulation.created.v1"]


def test_a_large_request_does_not_travel_through_the_flow(call: Call, drive: Drive, body: dict[str, Any]) -> None:
    blocked = {"engine": "e" * 120, "device": "d" * 120, "weights": "w" * 120, "reason": "r" * 500}
    accepted = call("POST", SIMULATIONS, {**body, "blocked": [blocked] * 100}).ok(202)
    run = drive(accepted["run"]["id"])
    assert run.status == "succeeded" and run.step("resolve_inputs").output == {}
    for field in ("engine", "device", "weights"):
        too_long = {**body, "blocked": [{field: "x" * 121}]}
        call("POST", SIMULATIONS, too_long).problem(422, "invalid_request")


@pytest.mark.parametrize("name", ["llama-3.1-8b-instruct", "qwen3-30b-a3b", "deepseek-v2-lite"])
def test_every_example_finds_a_plan(
    call: Call, drive: Drive, body: dict[str, Any], config: Callable[[str], Any], name: str
) -> None:
    found = simulated(call, drive, {**body, "model": {"name": name, "config": config(name)}})
    assert found["feasible"] and plans_of(call, found)["items"][0]["model"] == name


def test_a_known_name_needs_no_config(call: Call, drive: Drive, body: dict[str, Any]) -> None:
    found = simulated(call, drive, {**body, "model": "meta-llama/Llama-3.1-8B-Instruct"})
    assert found["feasible"] and found["model_name"] == "meta-llama/Llama-3.1-8B-Instruct"


def test_infeasible_is_a_result_with_the_nearest_plan_and_the_reason(
    call: Call, drive: Drive, body: dict[str, Any]
) -> None:
    """Nothing here decodes a million tokens per second for one user."""
    found = simulated(call, drive, {**body, "service_levels": {"ttft_ms": 500, "tokens_per_second": 1e6}})
    assert found["status"] == "completed" and found["feasible"] is False and plans_of(call, found)["items"] == []
    outcome = found["outcome"]
    assert outcome["binding_constraint"] and outcome["explanation"] and outcome["nearest"]["plan"]["devices"] > 0
    assert outcome["nearest"]["service_levels"]["tokens_per_second"] < 1e6


def test_a_model_that_fits_nowhere_is_a_result_too(
    call: Call, drive: Drive, body: dict[str, Any], config: Callable[[str], Any]
) -> None:
    huge = {**config("llama-3.1-8b-instruct"), "num_hidden_layers": 1000}
    groups = [{"name": "l40s-x4", "device": "l40s", "nodes": 1, "devices_per_node": 4}]
    found = simulated(call, drive, {**body, "model": {"name": "huge", "config": huge}, "device_groups": groups})
    assert found["feasible"] is False and found["outcome"]["binding_constraint"] == "memory"


def test_an_unknown_model(call: Call, body: dict[str, Any]) -> None:
    for name in ("no/such-model", "/etc/passwd", "examples/models/llama-3.1-8b-instruct.json"):
        problem = call("POST", SIMULATIONS, {**body, "model": name}).problem(422, "model_not_found")
        assert "config.json" in problem["next_action"]
    assert call("GET", SIMULATIONS).ok()["items"] == []


def test_a_model_that_disappeared_meanwhile_fails_the_run(
    call: Call, drive: Drive, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = call("POST", SIMULATIONS, {**body, "model": "meta-llama/Llama-3.1-8B-Instruct"}).ok(202)
    monkeypatch.setattr("foundry_sim.facts.architectures.catalogue._index", dict)
    monkeypatch.setattr("foundry_sim.facts.architectures.catalogue._aliases", dict, raising=False)
    run = drive(accepted["run"]["id"])
    assert run.status == "failed" and run.error.code == "model_not_found"
    found = call("GET", f"{SIMULATIONS}/{accepted['simulation']['id']}").ok()
    assert found["status"] == "failed" and found["error"]["code"] == "model_not_found" and found["outcome"] is None


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no load": ({"workload": {"input_tokens": 1, "output_tokens": 1}}, "invalid_request"),
    "two loads": ({"workload": {"input_tokens": 1, "output_tokens": 1, "concurrency": 1, "rate_per_s": 1}},
                  "invalid_request"),
    "no groups": ({"device_groups": []}, "invalid_request"),
    "no usable group": ({"device_groups": [{"name": "x", "device": None, "nodes": 1, "devices_per_node": 8},
                                           {"name": "y", "device": "l4", "nodes": 0, "devices_per_node": 8}]},
                        "no_devices"),
    "unknown device": ({"device_groups": [{"name": "x", "device": "abacus", "nodes": 1, "devices_per_node": 8}]},
                       "unknown_device"),
    "unknown purchase": ({"purchase": "stolen"}, "invalid_request"),
    "negative level": ({"service_levels": {"ttft_ms": -1}}, "invalid_request"),
    "unknown field": ({"device": "h100"}, "invalid_request"),
    "broken config": ({"model": {"name": "m", "config": {"hidden_size": "x"}}}, "config_invalid"),
    "no model": ({"model": None}, "invalid_request"),
    "too many plans": ({"max_plans": 21}, "invalid_request"),
    "unknown engine": ({"engines": ["ollama"]}, "simulation_invalid"),
    "too long": ({"workload": {"input_tokens": 10**6, "output_tokens": 1, "concurrency": 1}}, "simulation_invalid"),
    "nothing to generate": ({"workload": {"input_tokens": 8, "output_tokens": 0, "concurrency": 1}},
                            "simulation_invalid"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_told_at_once(call: Call, body: dict[str, Any], case: str) -> None:
    change, code = BAD[case]
    problem = call("POST", SIMULATIONS, {**body, **change}).problem(422, code)
    assert problem["detail"] and call("GET", SIMULATIONS).ok()["items"] == []


def test_not_json_and_too_large(call: Call, body: dict[str, Any], config: Callable[[str], Any]) -> None:
    text = json.dumps(body).replace('"ttft_ms": 500', '"ttft_ms": NaN')
    assert call("POST", SIMULATIONS, text).status == 422
    broken = {"name": "m", "config": {**config("llama-3.1-8b-instruct"), "note": "@"}}
    assert call("POST", SIMULATIONS, json.dumps({**body, "model": broken}).replace('"@"', "1e999")).status == 422
    large = {"name": "m", "config": {**config("llama-3.1-8b-instruct"), "note": "x" * 400_000}}
    call("POST", SIMULATIONS, {**body, "model": large}).problem(413, "simulation_too_large")


def test_lists_and_pages(call: Call, drive: Drive, body: dict[str, Any]) -> None:
    found = [simulated(call, drive, {**body, "max_plans": 5})["id"] for _ in range(2)]
    listed = call("GET", SIMULATIONS).ok()["items"]
    assert [item["id"] for item in listed] == found[::-1] and "outcome" not in listed[0]
    first = plans_of(call, listed[0], limit=3)
    second = plans_of(call, listed[0], limit=3, cursor=first["next_cursor"])
    ids = [plan["id"] for plan in first["items"] + second["items"]]
    assert len(ids) == len(set(ids)) == 5 and second["next_cursor"] is None


def test_a_simulation_belongs_to_its_project(call: Call, drive: Drive, body: dict[str, Any], join: Any) -> None:
    found = simulated(call, drive, body)
    for path in (f"/projects/prj_2/simulations/{found['id']}", f"/projects/prj_2/simulations/{found['id']}/plans"):
        call("GET", path).problem(404, "simulation_not_found")
        call("GET", path, principal=join("prj_2", "owner")).problem(404, "simulation_not_found")
    call("GET", f"{SIMULATIONS}/{found['id']}", principal=join("prj_2", "owner")).problem(404, "project_not_found")
    call("POST", SIMULATIONS, body, join("prj_1", "viewer")).problem(403, "forbidden")
    call("POST", SIMULATIONS, body, join("prj_1", "member", role="client")).problem(403, "forbidden")


def test_the_answer_has_an_etag(call: Call, drive: Drive, body: dict[str, Any]) -> None:
    accepted = call("POST", SIMULATIONS, body).ok(202)
    path = f"{SIMULATIONS}/{accepted['simulation']['id']}"
    tag = call("GET", path).headers["etag"]
    assert call("GET", path, headers={"if-none-match": tag}).status == 304
    drive(accepted["run"]["id"])
    assert call("GET", path, headers={"if-none-match": tag}).ok()["status"] == "completed"


def test_a_cancelled_run_cancels_the_simulation(call: Call, drive: Drive, body: dict[str, Any]) -> None:
    accepted = call("POST", SIMULATIONS, body).ok(202)
    runs.cancel(accepted["run"]["id"])
    assert drive(accepted["run"]["id"]).status == "cancelled"
    assert call("GET", SIMULATIONS).ok()["items"][0]["status"] == "cancelled"


def test_storing_twice_is_storing_once(call: Call, drive: Drive, body: dict[str, Any]) -> None:
    """The answer of the last step is lost; the next attempt of the run stores the same plans again."""
    accepted = call("POST", SIMULATIONS, body).ok(202)
    drive(accepted["run"]["id"])
    from functions.sim import service, store

    project_id, simulation_id = "prj_1", accepted["simulation"]["id"]
    outcome, (plans, _) = store.load_outcome(simulation_id), store.plan_page(simulation_id, 100, None)
    assert outcome is not None
    service.complete(project_id, simulation_id, outcome, plans)
    assert len(plans_of(call, accepted["simulation"])["items"]) == len(plans)
    assert sum(event["type"] == "foundry.simulation.completed.v1" for event in events()) == 1


def test_the_largest_outcome_fits_an_item(call: Call, drive: Drive, body: dict[str, Any]) -> None:
    groups = [
        {"name": f"g{number}", "device": device, "nodes": 2, "devices_per_node": 8}
        for number, device in enumerate(["h100_sxm", "h200_sxm", "b200_sxm", "a100_sxm", "l40s", "mi300x"] * 5)
    ]
    request = {**body, "device_groups": groups, "engines": ["vllm", "sglang", "trtllm"], "max_plans": 20}  # fmt: skip
    simulated(call, drive, request)
    sizes = [len(json.dumps(item)) for item in boto3.client("dynamodb").scan(TableName="foundry-test-sim")["Items"]]
    assert max(sizes) < 300_000
    runs_kept = boto3.client("dynamodb").scan(TableName="foundry-test-runs")["Items"]
    assert max(len(json.dumps(item)) for item in runs_kept) < 300_000


def test_devices(call: Call) -> None:
    found = call("GET", "/devices").ok()
    by_name = {device["name"]: device for device in found["items"]}
    assert by_name["h100_sxm"]["memory_bytes"] > 79e9 and by_name["h100_sxm"]["price_nanos_per_hour"]["on_demand"] > 0
    assert found["prices_as_of"] and "assum" in found["prices_note"].lower()
    call("GET", "/devices", principal="client").problem(403, "forbidden")
