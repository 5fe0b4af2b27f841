"""Endpoints appear and disappear with their deployment, through the tasks that the flows call."""

from collections.abc import Callable
from typing import Any

import pytest
from foundry_core import runs
from foundry_core.runs import StepStatus
from foundry_core.tasks import Tasks

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def _no_state_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundry_core.runs.service.start_execution", lambda run: None)


def state(project: str, deployment: str = "dep_1", name: str = "chat", urls: tuple[str, ...] = ("http://10.0.0.7:8000",),
          **more: Any) -> dict[str, Any]:  # fmt: skip
    """The state of a deploy flow when it comes to publish_endpoint."""
    price = {"input_nanos_per_token": 150, "output_nanos_per_token": 600}
    admit = {"deployment_id": deployment, "project_id": project, "cluster_id": "cls_1", "model_id": "mdl_1",
             "endpoint_name": name, "price": price, **more}  # fmt: skip
    return {"subject_id": deployment, "admit": {"output": admit},
            "wait_ready": {"output": {"status": "ready", "upstreams": list(urls), "source": "twin"}}}  # fmt: skip


@pytest.fixture
def perform(project: str) -> Callable[..., Any]:
    """Run a task of the app domain in a new run of that kind."""

    def performed(task: str, state: dict[str, Any], kind: str = "deploy_model", step: str = "") -> Any:
        from functions.app.handler import task as handler

        run = runs.create(kind, subject_id=state["subject_id"], project_id=project, created_by="u")
        payload = {"task": task, "step": step or task, "run_id": run.id, "attempt": 1, "input": state}
        output = handler(payload, None)
        assert step or runs.get(run.id).step(task).status == StepStatus.SUCCEEDED
        return output

    return performed


def test_a_published_endpoint_is_listed_without_its_addresses(call: Call, project: str, perform: Any) -> None:
    endpoint_id = perform("publish_endpoint", state(project))["endpoint_id"]
    answer = call("GET", f"/projects/{project}/endpoints/chat", None, "developer")
    endpoint = answer.ok()
    assert (endpoint["id"], endpoint["deployment_ids"], endpoint["model_id"]) == (endpoint_id, ["dep_1"], "mdl_1")
    assert endpoint["price"]["output_nanos_per_token"] == 600 and "10.0.0.7" not in str(endpoint)
    assert call("GET", f"/projects/{project}/endpoints").ok()["items"] == [endpoint]
    tag = {"if-none-match": answer.headers["etag"]}
    assert call("GET", f"/projects/{project}/endpoints/chat", headers=tag).status == 304


def test_gateways_are_told_where_it_is(project: str, perform: Any, gateway: Call) -> None:
    perform("publish_endpoint", state(project, model="org/m", max_output_tokens=4096))
    nothing = {"requests_per_minute": None, "tokens_per_minute": None, "budget_nanos": None}
    assert gateway("GET", "/gateway/config").ok()["endpoints"] == [{
        "name": "chat", "project_ids": [project],
        "tiers": [[{"id": "dep_1", "url": "http://10.0.0.7:8000", "model": "org/m", "source": "twin",
                    "provider": "openai", "credential_ref": None, "weight": 1.0, "asleep": False, "shadow": False,
                    "endpoint": ""}]],
        "price": {"input_nanos_per_token": 150, "output_nanos_per_token": 600, "cached_nanos_per_token": None},
        "limits": nothing, "max_output_tokens": 4096, "adapters": {},
        "policy": {"routing": "least_outstanding", "retries": 2, "cache_ttl_s": 0, "coalesce_ms": 0, "fallbacks": [],
                   "hold_s": 0, "hold_queue": 64, "guardrails": []},
        "problem": "",
    }]  # fmt: skip


def test_several_addresses_have_ids_of_their_own(project: str, perform: Any, gateway: Call) -> None:
    perform("publish_endpoint", state(project, urls=("http://a:1", "http://b:1")))
    (tier,) = gateway("GET", "/gateway/config").ok()["endpoints"][0]["tiers"]
    assert [(one["id"], one["url"]) for one in tier] == [("dep_1/0", "http://a:1"), ("dep_1/1", "http://b:1")]


def test_publishing_again_changes_only_what_changed(call: Call, project: str, perform: Any, gateway: Call) -> None:
    first = perform("publish_endpoint", state(project))
    version = gateway("GET", "/gateway/config").ok()["version"]
    assert perform("publish_endpoint", state(project)) == first
    assert gateway("GET", "/gateway/config").ok()["version"] == version
    assert perform("publish_endpoint", state(project, urls=("http://moved:8000",))) == first
    config = gateway("GET", "/gateway/config").ok()
    assert config["endpoints"][0]["tiers"][0][0]["url"] == "http://moved:8000" and config["version"] == version + 1


def test_a_name_belongs_to_one_deployment(call: Call, project: str, perform: Any) -> None:
    from functions.app.services.endpoints import NameTaken

    perform("publish_endpoint", state(project))
    with pytest.raises(NameTaken):
        perform("publish_endpoint", state(project, "dep_2"))
    perform("unpublish_endpoint", state(project, "dep_2"), step="undo_endpoint")  # takes nothing that is not its own
    assert call("GET", f"/projects/{project}/endpoints/chat").ok()["deployment_ids"] == ["dep_1"]


def test_withdrawing_frees_the_name_and_may_be_repeated(call: Call, project: str, perform: Any, gateway: Call) -> None:
    perform("publish_endpoint", state(project))
    for _ in range(2):
        perform("unpublish_endpoint", state(project), "delete_deployment")
    call("GET", f"/projects/{project}/endpoints/chat").problem(404, "endpoint_not_found")
    assert gateway("GET", "/gateway/config").ok()["endpoints"] == []
    perform("publish_endpoint", state(project, "dep_2"))


def test_an_endpoint_of_another_project_does_not_exist_here(call: Call, project: str, perform: Any) -> None:
    perform("publish_endpoint", state(project))
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    call("GET", f"/projects/{other}/endpoints/chat").problem(404, "endpoint_not_found")
    assert call("GET", f"/projects/{other}/endpoints").ok()["items"] == []


def removed(project: str, deployment: str) -> None:
    """A removal as the cluster domain ends it."""
    tasks = Tasks("cluster")
    tasks.task("mark_deleted")(lambda context: {})
    run = runs.create("delete_deployment", subject_id=deployment, project_id=project, created_by="u")
    tasks.handler({"task": "mark_deleted", "run_id": run.id, "attempt": 1, "input": {}}, None)


def test_a_project_with_deployments_stays(call: Call, project: str) -> None:
    """Whatever became of them: pending, failed or half removed ones still hold GPUs."""
    for deployment in ("dep_1", "dep_2"):
        runs.create("deploy_model", subject_id=deployment, project_id=project, created_by="u")
    runs.create("delete_deployment", subject_id="dep_2", project_id=project, created_by="u")
    for left in ("dep_1", "dep_2"):
        assert left in call("DELETE", f"/projects/{project}").problem(409, "project_in_use")["detail"]
        removed(project, left)
    call("DELETE", f"/projects/{project}").ok(204)


def test_a_project_that_serves_an_endpoint_stays(call: Call, project: str, perform: Any) -> None:
    perform("publish_endpoint", state(project))
    key = call("POST", f"/projects/{project}/keys", {"name": "one"}).ok(201)["id"]
    removed(project, "dep_1")  # but not its endpoint
    assert "chat" in call("DELETE", f"/projects/{project}").problem(409, "project_in_use")["detail"]
    call("GET", f"/projects/{project}/keys/{key}").ok()
    perform("unpublish_endpoint", state(project), "delete_deployment")
    call("DELETE", f"/projects/{project}").ok(204)


def test_no_endpoint_for_a_project_that_is_gone(call: Call, project: str, perform: Any) -> None:
    from foundry_core.errors import NotFound

    with pytest.raises(NotFound):
        perform("publish_endpoint", state("prj_gone"))


def test_limits_of_an_endpoint_survive_a_new_address(call: Call, project: str, perform: Any, gateway: Call) -> None:
    perform("publish_endpoint", state(project))
    path = f"/projects/{project}/endpoints/chat"
    tag = {"if-match": call("GET", path).headers["etag"]}
    changed = call("PATCH", path, {"limits": {"budget_nanos": 9}}, "developer", tag).ok()
    assert changed["limits"]["budget_nanos"] == 9
    call("PATCH", path, {"limits": None}, "developer", tag).problem(412, "precondition_failed")
    perform("publish_endpoint", state(project, urls=("http://moved:8000",)))
    (endpoint,) = gateway("GET", "/gateway/config").ok()["endpoints"]
    assert endpoint["limits"]["budget_nanos"] == 9 and endpoint["tiers"][0][0]["url"] == "http://moved:8000"
    assert call("PATCH", path, {"limits": {"budget_nanos": None}}).ok()["limits"]["budget_nanos"] is None
    assert call("PATCH", path, {}).ok() == call("GET", path).ok()
    call("PATCH", path, {"backends": []}).problem(422, "invalid_request")
    call("PATCH", f"/projects/{project}/endpoints/none", {}).problem(404, "endpoint_not_found")


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.7:80000",
        "http://10.0.0.7:x",
        "file:///etc/passwd",
        "http://a\r\nb",
        "http://u:p@a",
        "http://é",
        "",
    ],
)
def test_an_address_that_a_gateway_cannot_read_is_not_published(
    call: Call, project: str, perform: Any, gateway: Call, url: str
) -> None:
    from foundry_core.errors import Invalid

    with pytest.raises(Invalid, match="The cluster says"):
        perform("publish_endpoint", state(project, urls=(url,)))
    assert gateway("GET", "/gateway/config").ok()["endpoints"] == []
