"""Which deployments are asked about, that may fall asleep by themselves."""

from collections.abc import Callable
from typing import Any

import pytest
from foundry_core.clock import now_ms

Call = Callable[..., Any]
SLEEPY = {"policy": {"hold_s": 60, "sleep_after_s": 900}}


@pytest.fixture
def path(call: Call, project: str) -> str:
    from functions.app.services import endpoints

    for name in ("chat", "other"):
        facts = {"deployment_id": f"dep_{name}", "project_id": project, "model_id": "m", "endpoint_name": name}
        endpoints.publish(facts, {"upstreams": ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]})
    return f"/projects/{project}/endpoints/chat"


def asked(outbox: Any) -> list[dict[str, Any]]:
    from functions.app.handler import idle

    before = {event["id"] for event in outbox()}
    idle({}, None)
    return [event for event in outbox() if event["id"] not in before]


def test_of_those_that_may_sleep_and_are_awake(call: Call, project: str, path: str, outbox: Any) -> None:
    from functions.app.services import endpoints

    assert asked(outbox) == []
    call("PATCH", path, SLEEPY).ok()
    [question] = asked(outbox)
    assert (question["type"], question["subject"]) == ("foundry.deployment.idle_asked.v1", "dep_chat")
    said = dict(question["data"])
    assert now_ms() - said.pop("as_of_ms") < 60_000
    assert said == {"project_id": project, "deployment_id": "dep_chat", "sleep_after_s": 900}
    endpoints.sleep("dep_chat")
    assert asked(outbox) == []


def test_an_external_provider_is_not_ours_to_put_to_sleep(call: Call, project: str, outbox: Any) -> None:
    made = {"name": "far", "provider": "openai", "url": "https://api.example.com", "model": "m", **SLEEPY}
    call("POST", f"/projects/{project}/endpoints", made).ok(201)
    assert asked(outbox) == []


def test_only_what_requests_wake_falls_asleep(call: Call, path: str) -> None:
    problem = call("PATCH", path, {"policy": {"sleep_after_s": 900}}).problem(422, "never_woken")
    assert "hold_s" in problem["next_action"]
    call("PATCH", path, SLEEPY).ok()
    call("PATCH", path, {"policy": {"hold_s": 0}}).problem(422, "never_woken")
    assert call("PATCH", path, {"policy": {"sleep_after_s": 3600}}).ok()["policy"]["hold_s"] == 60


def test_a_fallback_stays_awake(call: Call, project: str, path: str) -> None:
    """The requests that it is there for would not wake it: they fail, and with them what they fell back from."""
    other = f"/projects/{project}/endpoints/other"
    call("PATCH", other, SLEEPY).ok()
    problem = call("PATCH", path, {"policy": {"fallbacks": ["other"]}}).problem(422, "never_woken")
    assert "other" in problem["detail"] and "chat" in problem["next_action"]
    call("PATCH", other, {"policy": {"sleep_after_s": 0}}).ok()
    call("PATCH", path, {"policy": {"fallbacks": ["other"]}}).ok()
    call("PATCH", other, SLEEPY).problem(422, "never_woken")
    call("PATCH", path, SLEEPY).ok()  # which its own requests wake
