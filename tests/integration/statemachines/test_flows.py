"""What every flow does with every outcome of every step. The tables below are the specification, not the ASL files."""

from typing import Any

import boto3
import pytest

DEPLOY = ["admit", "apply_manifests", "wait_ready", "verify", "publish_endpoint", "mark_ready", "finish_run"]
FORWARD = {
    "simulate": ["resolve_inputs", "search", "store_plans", "finish_run"],
    "recommend": ["list_clusters", "list_models", "recommend", "finish_run"],
    "register_cluster": ["connect", "discover_nodes", "install_addons", "addons_ready", "mark_ready", "finish_run"],
    "deploy_model": DEPLOY,
    "delete_deployment": [
        "unpublish_endpoint",
        "drain",
        "remove_manifests",
        "wait_removed",
        "mark_deleted",
        "finish_run",
    ],
    "sleep_deployment": ["begin_sleep", "sleep_endpoint", "drain", "scale_down", "mark_asleep", "finish_run"],
    "wake_deployment": DEPLOY,
}
DOMAIN = {
    "list_clusters": "cluster",
    "list_models": "model",
    "publish_endpoint": "app",
    "unpublish_endpoint": "app",
    "undo_endpoint": "app",
    "sleep_endpoint": "app",
}
OWNER = {
    "simulate": "sim",
    "recommend": "sim",
    "register_cluster": "cluster",
    "deploy_model": "cluster",
    "delete_deployment": "cluster",
    "sleep_deployment": "cluster",
    "wake_deployment": "cluster",
}
TASK = {"undo_endpoint": "unpublish_endpoint", "undo_manifests": "remove_manifests"}
DONE = {"wait_removed": {"status": "removed"}, "recommend": {"status": "done"}}
POLLING = {
    # flow: (step, final word, error when it never comes, looks)
    "register_cluster": ("addons_ready", "ready", "AddonsTimeout", 136),
    "deploy_model": ("wait_ready", "ready", "DeploymentTimeout", 256),
    "delete_deployment": ("wait_removed", "removed", "RemovalTimeout", 76),
    "wake_deployment": ("wait_ready", "ready", "DeploymentTimeout", 256),
}
EVERY_STEP = [(kind, step) for kind, steps in FORWARD.items() for step in steps]


def compensation(kind: str, failed: str) -> list[str]:
    """Steps that follow a failure of ``failed``."""
    if kind in ("simulate", "recommend", "delete_deployment") or failed == "finish_run":  # what is ready stays
        return ["fail_run"]
    if kind in ("register_cluster", "sleep_deployment") or (kind == "wake_deployment" and failed == "admit"):
        return ["mark_failed", "fail_run"]
    if kind == "wake_deployment":
        return ["undo_endpoint", "undo_manifests", "mark_failed", "fail_run"]
    published = DEPLOY.index(failed) >= DEPLOY.index("publish_endpoint")
    return [*(["undo_endpoint"] if published else []), "undo_manifests", "mark_failed", "fail_run"]


def until(kind: str, step: str) -> list[str]:
    return FORWARD[kind][: FORWARD[kind].index(step) + 1]


@pytest.fixture(autouse=True)
def _removal_succeeds(tasks: Any) -> None:
    tasks.script.update(DONE)


@pytest.mark.parametrize("kind", FORWARD)
def test_happy_path_calls_each_step_once_in_order(machines: Any, tasks: Any, kind: str) -> None:
    execution = machines.start(kind)
    assert execution.status == "SUCCEEDED"
    assert tasks.steps == FORWARD[kind]
    assert execution.states[-1] == "succeeded"
    assert machines.waits == []


@pytest.mark.parametrize("kind", FORWARD)
def test_payload_is_the_contract_of_the_task_runtime(machines: Any, tasks: Any, kind: str) -> None:
    machines.start(kind, run_id=f"payload-{kind}", project_id="project-1")
    for domain, payload in tasks.calls:
        step = payload["step"]
        assert set(payload) == {"task", "step", "run_id", "attempt", "input"}
        assert (payload["run_id"], payload["attempt"]) == (f"payload-{kind}", 1)
        assert payload["task"] == TASK.get(step, step)
        assert payload["input"]["subject_id"] == "subject-1" and payload["input"]["project_id"] == "project-1"
        assert domain == DOMAIN.get(step, OWNER[kind])


@pytest.mark.parametrize(("kind", "step"), EVERY_STEP)
def test_any_error_compensates_and_fails_the_run(machines: Any, tasks: Any, kind: str, step: str, failure: Any) -> None:
    tasks.script[step] = failure("ManifestRejected")
    execution = machines.start(kind)
    assert execution.status == "FAILED"
    assert tasks.steps == [*until(kind, step), *compensation(kind, step)]
    assert execution.error == "ManifestRejected" and "scripted ManifestRejected" in execution.cause
    assert tasks.input_of("fail_run")["error"]["Error"] == "ManifestRejected"


@pytest.mark.parametrize(("kind", "step"), EVERY_STEP)
def test_a_stale_attempt_stops_without_touching_anything(
    machines: Any, tasks: Any, kind: str, step: str, failure: Any
) -> None:
    tasks.script[step] = failure("StaleAttempt")
    execution = machines.start(kind)
    assert (execution.status, execution.error) == ("FAILED", "StaleAttempt")
    assert tasks.steps == until(kind, step)
    assert execution.states[-1] == "superseded"


@pytest.mark.parametrize("kind", FORWARD)
def test_cancel_compensates(machines: Any, tasks: Any, kind: str, failure: Any) -> None:
    step = FORWARD[kind][-2]
    tasks.script[step] = failure("RunCancelled")
    execution = machines.start(kind)
    assert (execution.status, execution.error) == ("FAILED", "RunCancelled")
    assert tasks.steps == [*until(kind, step), *compensation(kind, step)]


@pytest.mark.parametrize("kind", FORWARD)
@pytest.mark.parametrize(
    "name", ["TransientError", "Lambda.ServiceException", "Lambda.TooManyRequestsException", "Sandbox.Timedout"]
)
def test_what_passes_is_retried(machines: Any, tasks: Any, kind: str, name: str, failure: Any) -> None:
    first = FORWARD[kind][0]
    tasks.script[first] = [failure(name), failure(name), {}]
    execution = machines.start(kind)
    assert execution.status == "SUCCEEDED"
    assert tasks.steps == [first, first, *FORWARD[kind]]


@pytest.mark.parametrize("kind", FORWARD)
def test_what_does_not_pass_fails_after_the_retries(machines: Any, tasks: Any, kind: str, failure: Any) -> None:
    first = FORWARD[kind][0]
    tasks.script[first] = failure("TransientError")
    execution = machines.start(kind)
    assert (execution.status, execution.error) == ("FAILED", "TransientError")
    assert tasks.steps == [first] * 6 + compensation(kind, first)


@pytest.mark.parametrize(("kind", "step"), EVERY_STEP)
def test_an_error_of_ours_is_not_retried(machines: Any, kind: str, step: str) -> None:
    state = machines.definitions[kind]["States"][step]
    retried = {name for retrier in state["Retry"] for name in retrier["ErrorEquals"]}
    assert retried == {
        "TransientError", "Lambda.ServiceException", "Lambda.AWSLambdaException", "Lambda.SdkClientException",
        "Lambda.TooManyRequestsException", "Lambda.Unknown", "Sandbox.Timedout",
    }  # fmt: skip
    assert all(retrier["JitterStrategy"] == "FULL" and retrier["MaxDelaySeconds"] <= 60 for retrier in state["Retry"])


@pytest.mark.parametrize("kind", POLLING)
def test_polling_looks_often_at_first(machines: Any, tasks: Any, kind: str) -> None:
    step, final, _, _ = POLLING[kind]
    tasks.script[step] = [*[{"status": "waiting"}] * 17, {"status": final}]
    assert machines.start(kind).status == "SUCCEEDED"
    assert tasks.steps.count(step) == 18
    assert machines.waits == [2] * 15 + [15] * 2
    assert [p["input"]["poll"]["count"] for _, p in tasks.calls if p["step"] == step] == list(range(18))


@pytest.mark.parametrize("kind", POLLING)
def test_polling_ends(machines: Any, tasks: Any, kind: str) -> None:
    step, _, error, looks = POLLING[kind]
    tasks.script[step] = {"status": "waiting"}
    execution = machines.start(kind)
    assert (execution.status, execution.error) == ("FAILED", error)
    assert tasks.steps == [*until(kind, step), *[step] * (looks - 1), *compensation(kind, step)]


@pytest.mark.parametrize("kind", POLLING)
@pytest.mark.parametrize("output", [{}, None, {"status": None}], ids=["empty", "none", "null"])
def test_a_polling_task_that_says_nothing_is_asked_again(machines: Any, tasks: Any, kind: str, output: Any) -> None:
    step, final, _, _ = POLLING[kind]
    tasks.script[step] = [output, {"status": final}]
    assert machines.start(kind).status == "SUCCEEDED"
    assert tasks.steps.count(step) == 2


def test_the_same_attempt_starts_once(machines: Any, tasks: Any) -> None:
    machines.start("simulate", run_id="twice")
    exists = boto3.client("stepfunctions").exceptions.ExecutionAlreadyExists
    with pytest.raises(exists):
        machines.start("simulate", run_id="twice")
    assert tasks.steps == FORWARD["simulate"]


def test_the_next_attempt_of_a_run_starts(machines: Any, tasks: Any, failure: Any) -> None:
    tasks.script["search"] = [failure("InvalidInput"), {"feasible": True}]
    assert machines.start("simulate", run_id="again").status == "FAILED"
    assert machines.start("simulate", run_id="again", attempt=2).status == "SUCCEEDED"
    assert {payload["attempt"] for _, payload in tasks.calls} == {1, 2}


def test_outputs_reach_later_steps(machines: Any, tasks: Any) -> None:
    admitted = {"deployment_id": "d", "project_id": "p", "cluster_id": "c", "model_id": "m", "endpoint_name": "chat"}
    ready = {"status": "ready", "upstreams": ["http://10.0.0.1:8000"]}
    result = {"deployment_id": "d", "endpoint_id": "e", "endpoint_name": "chat"}
    tasks.script.update(admit=admitted, wait_ready=ready, publish_endpoint={"endpoint_id": "e"}, mark_ready=result)
    execution = machines.start("deploy_model")
    seen = tasks.input_of("publish_endpoint")
    assert seen["admit"]["output"] == admitted and seen["wait_ready"]["output"] == ready
    assert tasks.input_of("finish_run")["result"]["output"] == result
    assert execution.output["result"]["output"] == result


def test_infeasible_is_a_result(machines: Any, tasks: Any) -> None:
    tasks.script["search"] = {"feasible": False, "plans": [], "nearest": {"tp": 8}, "binding_constraint": "ttft"}
    assert machines.start("simulate").status == "SUCCEEDED"
    assert tasks.input_of("store_plans")["search"]["output"]["binding_constraint"] == "ttft"


@pytest.mark.parametrize("undo", ["undo_endpoint", "undo_manifests", "mark_failed"])
def test_compensation_goes_on_when_a_part_of_it_fails(machines: Any, tasks: Any, undo: str, failure: Any) -> None:
    tasks.script.update({"mark_ready": failure("NodeGone"), undo: failure("ClusterUnreachable")})
    execution = machines.start("deploy_model")
    expected = [*until("deploy_model", "mark_ready"), *compensation("deploy_model", "mark_ready")]
    place = expected.index(undo)
    assert tasks.steps == [*expected[:place], *[undo] * 9, *expected[place + 1 :]]
    assert execution.error == "NodeGone"  # the reason is kept, not what went wrong afterwards
    assert tasks.input_of("fail_run")["undo_error"]["Error"] == "ClusterUnreachable"


def test_a_failed_wake_up_puts_back_to_sleep_and_removes_nothing(machines: Any, tasks: Any, failure: Any) -> None:
    tasks.script["wait_ready"] = failure("EngineFailed")
    machines.start("wake_deployment")
    undone = {payload["step"]: payload["task"] for _, payload in tasks.calls if payload["step"].startswith("undo")}
    assert undone == {"undo_endpoint": "sleep_endpoint", "undo_manifests": "scale_down"}


@pytest.mark.parametrize("undo", ["undo_endpoint", "undo_manifests", "mark_failed", "fail_run"])
def test_a_stale_attempt_stops_compensation_too(machines: Any, tasks: Any, undo: str, failure: Any) -> None:
    tasks.script.update({"mark_ready": failure("NodeGone"), undo: failure("StaleAttempt")})
    assert machines.start("deploy_model").error == "StaleAttempt"
    assert tasks.steps[-1] == undo and tasks.steps.count(undo) == 1


def test_a_failed_registration_is_recorded_when_marking_it_fails(machines: Any, tasks: Any, failure: Any) -> None:
    tasks.script.update(connect=failure("ClusterUnreachable"), mark_failed=failure("Conflict"))
    execution = machines.start("register_cluster")
    assert execution.error == "ClusterUnreachable"
    assert tasks.steps == ["connect", *["mark_failed"] * 9, "fail_run"]


def test_recommend_takes_the_models_page_by_page(machines: Any, tasks: Any) -> None:
    tasks.script["recommend"] = [{"status": "waiting"}, {"status": "waiting"}, {"status": "done"}]
    assert machines.start("recommend").status == "SUCCEEDED"
    assert tasks.steps == ["list_clusters", *["list_models", "recommend"] * 3, "finish_run"]
    assert machines.waits == []
