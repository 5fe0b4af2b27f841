"""The main job through the REST API and the gateway: what `make demo` shows, step by step."""

import json
import time
from typing import Any

import httpx
import psutil
import pytest


def chat(platform: Any, job: Any, **more: Any) -> httpx.Response:
    body = {"model": job.endpoint, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16, **more}
    return platform.gateway(job.key).post("/v1/chat/completions", json=body)  # type: ignore[no-any-return]


def test_the_plan_keeps_the_service_levels(job: Any) -> None:
    assert job.plan["predicted"]["ttft_ms"]["mean"] <= 500
    assert job.plan["model"] == job.model["name"]


def test_the_deployment_is_ready(platform: Any, job: Any, ok: Any) -> None:
    deployment = ok(platform.client().get(f"/projects/{job.project_id}/deployments/{job.deployment_id}"))
    assert deployment["status"] == "ready"


def test_recommendations_name_the_cluster(platform: Any, job: Any, ok: Any, eventually: Any) -> None:
    client = platform.client()
    run = ok(client.post("/simulator/recommendations"))["run"]
    assert eventually(lambda: ok(client.get(f"/runs/{run['id']}"))["status"] == "succeeded")
    found = {item["model_id"]: item for item in ok(client.get("/simulator/recommendations"))["items"]}
    [choice] = found[job.model["id"]]["choices"]
    assert choice["plan"]["meets_service_levels"] and choice["cost_nanos_per_hour"] > 0


def test_a_chat_is_answered_by_a_twin(platform: Any, job: Any, ok: Any) -> None:
    answer = chat(platform, job)
    assert ok(answer)["usage"]["completion_tokens"] == 16
    assert answer.headers.get("x-foundry-source", "twin") == "twin"


def test_a_stream_arrives_as_it_is_made(platform: Any, job: Any) -> None:
    body = {"model": job.endpoint, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 64, "stream": True}
    arrivals, lines = [], []
    with platform.gateway(job.key).stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            arrivals.append(time.monotonic())
            lines.append(line)
    assert lines[-2:] == ["data: [DONE]", ""] or "data: [DONE]" in lines
    # 63 steps of several milliseconds each: were it buffered, all of it would come at once.
    assert arrivals[-1] - arrivals[0] > 0.1


def test_usage_and_accuracy_are_measured(platform: Any, job: Any, ok: Any, eventually: Any) -> None:
    for _ in range(3):
        assert chat(platform, job).is_success
    metrics = f"/projects/{job.project_id}/metrics"

    def rows() -> Any:
        return ok(platform.client().get(f"{metrics}/usage"))["items"]

    eventually(lambda: any(row["requests"] >= 3 for row in rows()))
    accuracy = ok(platform.client().get(f"{metrics}/deployments/{job.deployment_id}/accuracy"))
    assert "twin" in json.dumps(accuracy)


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"authorization": "Bearer fk-nonsense"}, 401), ({"authorization": "x"}, 401)]
)
def test_the_gateway_refuses_strangers(platform: Any, headers: dict[str, str], status: int) -> None:
    answer = httpx.post(f"{platform.status.api_url}/v1/chat/completions", json={}, headers=headers)
    assert answer.status_code == status


def test_a_stranger_and_an_expired_session_are_refused(platform: Any) -> None:
    assert httpx.get(f"{platform.status.api_url}/me").status_code == 401
    token = platform.token("admin")
    forged = token[:-4] + ("aaaa" if token[-4:] != "aaaa" else "bbbb")
    headers = {"authorization": f"Bearer {forged}"}
    assert httpx.get(f"{platform.status.api_url}/me", headers=headers).status_code == 401


def test_a_role_that_may_not_gets_a_problem(platform: Any) -> None:
    answer = platform.client("client").get("/users")
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")


def test_an_oversized_body_gets_a_problem(platform: Any) -> None:
    answer = platform.client().post("/models", content=b"x" * (11 * 1024 * 1024))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_repeated_request_is_answered_once(platform: Any, ok: Any) -> None:
    headers = {"idempotency-key": "the-same-key"}
    answers = [ok(platform.client().post("/projects", json={"name": "once"}, headers=headers)) for _ in range(2)]
    assert answers[0]["id"] == answers[1]["id"]
    names = [project["name"] for project in ok(platform.client().get("/projects"))["items"]]
    assert names.count("once") == 1


def listening(process: psutil.Process) -> set[str]:
    """Addresses; none of a function's process that has ended meanwhile."""
    try:
        connections = process.net_connections(kind="inet")
    except psutil.NoSuchProcess:
        return set()
    return {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}


def test_nothing_listens_beyond_loopback(platform: Any) -> None:
    main = psutil.Process(platform.status.pid)
    addresses = set().union(*(listening(process) for process in (main, *main.children(recursive=True))))
    assert addresses == {"127.0.0.1"}
