"""A deployment that sleeps is woken by a request, which waits and is answered."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest


def path_of(job: Any) -> str:
    return f"/projects/{job.project_id}/deployments/{job.deployment_id}"


def ask(platform: Any, job: Any) -> httpx.Response:
    body = {"model": job.endpoint, "messages": [{"role": "user", "content": "Good morning"}], "max_tokens": 4}
    answer: httpx.Response = platform.gateway(job.key).post("/v1/chat/completions", json=body)
    return answer


@pytest.fixture
def wake_ups(platform: Any, job: Any, ok: Any) -> Any:
    def count() -> int:
        runs = ok(platform.client().get("/runs", params={"project_id": job.project_id, "limit": 100}))["items"]
        return sum(run["kind"] == "wake_deployment" for run in runs)

    return count


@pytest.fixture
def fall_asleep(platform: Any, job: Any, ok: Any, eventually: Any) -> Any:
    def ask_to_sleep() -> httpx.Response | None:
        """None while the run that woke it, which ends after the deployment is ready, is at work."""
        answer: httpx.Response = platform.client().post(f"{path_of(job)}/sleep")
        return None if answer.status_code == 409 else answer

    def rest() -> None:
        run = ok(eventually(ask_to_sleep))["run"]
        assert platform.ended(run["id"])["status"] == "succeeded"
        assert ok(platform.client().get(path_of(job)))["status"] == "asleep"

    return rest


@pytest.fixture
def awake(platform: Any, job: Any, ok: Any, eventually: Any) -> Any:
    def ready() -> bool:
        """Gateways serve a deployment a little before the run that wakes it calls it ready."""
        return bool(ok(platform.client().get(path_of(job)))["status"] == "ready")

    return lambda: eventually(ready)


def test_requests_wake_a_sleeping_deployment_once_and_are_answered(
    platform: Any, job: Any, ok: Any, eventually: Any, fall_asleep: Any, awake: Any, wake_ups: Any
) -> None:
    fall_asleep()
    refused = ask(platform, job)
    assert refused.status_code == 503 and refused.headers["retry-after"] and wake_ups() == 0
    policy = {"policy": {"hold_s": 50}}
    ok(platform.client().patch(f"/projects/{job.project_id}/endpoints/{job.endpoint}", json=policy))
    eventually(lambda: ask(platform, job).status_code == 200)
    assert awake() and wake_ups() == 1
    fall_asleep()
    with ThreadPoolExecutor(3) as clients:
        answers = list(clients.map(lambda _: ask(platform, job), range(3)))
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert awake() and wake_ups() == 2
