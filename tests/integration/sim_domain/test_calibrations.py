"""A project's own measurements: kept in versions, taken back, and felt by predictions and simulations."""

from collections.abc import Callable
from typing import Any

Call = Callable[..., Any]
Drive = Callable[[str], Any]
HERE = "/projects/prj_1"
TOOL = f"{HERE}/simulator"
ROW = {
    "id": "a", "model": "meta-llama/Llama-3.1-8B-Instruct", "device": "h100_sxm", "engine": "vllm", "tp": 1,
    "isl": 512, "osl": 128, "load": {"kind": "closed", "concurrency": 8},
}  # fmt: skip


def slow(factor: float, call: Call) -> dict[str, Any]:
    plain = call("POST", f"{TOOL}/predictions", {"requests": [ROW]}).ok()["items"][0]
    measured = {name: factor * plain[name]["mean"] for name in ("ttft_ms", "tpot_ms")}
    return {"request": {k: v for k, v in ROW.items() if k != "id"}, "measured": measured}


def test_points_move_predictions_and_can_be_taken_back(call: Call) -> None:
    assert call("GET", f"{TOOL}/calibration").ok() | {"created_at_ms": 0} == {
        "version": 0, "point_count": 0, "reverts_to": None, "created_by": "", "created_at_ms": 0, "points": [],
    }  # fmt: skip
    before = call("POST", f"{TOOL}/predictions", {"requests": [ROW]}).ok()
    point = slow(2.0, call)
    added = call("POST", f"{TOOL}/calibration/points", {"points": [point, point]}).ok(201)
    assert (added["version"], added["point_count"]) == (1, 2)
    after = call("POST", f"{TOOL}/predictions", {"requests": [ROW]}).ok()
    assert after["calibration_version"] == 1
    ratio = after["items"][0]["tpot_ms"]["mean"] / before["items"][0]["tpot_ms"]["mean"]
    assert 1.5 < ratio < 2.0
    back = call("POST", f"{TOOL}/calibration/revert", {"version": 0}).ok(201)
    assert (back["version"], back["point_count"], back["reverts_to"]) == (2, 0, 0)
    assert call("POST", f"{TOOL}/predictions", {"requests": [ROW]}).ok()["items"] == before["items"]
    kept = call("GET", f"{TOOL}/calibration/versions").ok()["items"]
    assert [(item["version"], item["point_count"]) for item in kept] == [(2, 0), (1, 2)]
    assert len(call("GET", f"{TOOL}/calibration", version=1).ok()["points"]) == 2


def test_simulations_use_the_points_of_their_time(call: Call, drive: Drive, body: dict[str, Any]) -> None:
    asked = {**body, "model": "meta-llama/Llama-3.1-8B-Instruct", "engines": ["vllm"]}

    def plans() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        accepted = call("POST", f"{HERE}/simulations", asked).ok(202)
        drive(accepted["run"]["id"])
        path = f"{HERE}/simulations/{accepted['simulation']['id']}"
        return call("GET", path).ok(), call("GET", f"{path}/plans").ok()["items"]

    _, first = plans()
    best = first[0]
    load = {"kind": "closed", "concurrency": -(-body["workload"]["concurrency"] // best["replicas"])}
    layout = {name: best[name] for name in ("tp", "pp", "ep", "dp")}
    lengths = {"isl": body["workload"]["input_tokens"], "osl": body["workload"]["output_tokens"]}
    row = {"model": asked["model"], "device": best["device"], "engine": "vllm", "load": load, **layout, **lengths}
    told = call("POST", f"{TOOL}/predictions", {"requests": [row]}).ok()["items"][0]
    point = {"request": row, "measured": {"tpot_ms": told["tpot_ms"]["mean"] * 3}}
    call("POST", f"{TOOL}/calibration/points", {"points": [point] * 5}).ok(201)
    simulation, second = plans()
    assert simulation["calibration_version"] == 1
    same = [p for p in second if all(p[n] == best[n] for n in (*layout, "replicas", "device_group"))]
    assert not same or same[0]["predicted"]["tpot_ms"]["mean"] > 1.5 * best["predicted"]["tpot_ms"]["mean"]


def test_bad_points_and_versions_change_nothing(call: Call) -> None:
    point = {"request": {**ROW, "device": "abacus"}, "measured": {"tpot_ms": 5}}
    assert call("POST", f"{TOOL}/calibration/points", {"points": [point]}).status == 422
    nothing = {"request": ROW, "measured": {}}
    assert call("POST", f"{TOOL}/calibration/points", {"points": [nothing]}).status == 422
    path = {"request": {**ROW, "model": "/etc/passwd"}, "measured": {"tpot_ms": 5}}
    assert call("POST", f"{TOOL}/calibration/points", {"points": [path]}).status == 422
    assert call("POST", f"{TOOL}/calibration/revert", {"version": 7}).status == 404
    assert call("GET", f"{TOOL}/calibration").ok()["version"] == 0


def test_a_row_that_cannot_be_predicted_says_so_beside_those_that_can(call: Call) -> None:
    rows = [ROW, {**ROW, "id": "b", "model": "/etc/passwd"}, {"id": "c"}]
    items = call("POST", f"{TOOL}/predictions", {"requests": rows}).ok()["items"]
    assert [item["id"] for item in items] == ["a", "b", "c"]
    assert [item["error"] is None for item in items] == [True, False, False]


def test_layouts_of_chosen_nodes(call: Call, body: dict[str, Any]) -> None:
    items = call("POST", f"{TOOL}/node-configurations", body).ok()["items"]
    assert items and items[0]["fits"] and items[0]["max_replicas"] >= 1
    assert {item["tp"] for item in items} >= {1, 2}


def test_each_model_gets_its_cheapest_group_or_a_reason(call: Call, body: dict[str, Any]) -> None:
    models = ["meta-llama/Llama-3.1-8B-Instruct", "deepseek-ai/DeepSeek-R1"]
    asked = {"models": models, "device_groups": body["device_groups"], "workload_class": "chat"}
    items = call("POST", f"{TOOL}/recommendations", asked).ok()["items"]
    assert [item["model"] for item in items] == models
    assert all(item["best"] or item["explanation"] for item in items)
    assert call("POST", f"{TOOL}/recommendations", {**asked, "workload_class": "poetry"}).status == 422
    assert call("POST", f"{TOOL}/recommendations", {**asked, "models": ["/etc/passwd"]}).status == 422
