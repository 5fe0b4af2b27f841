"""What an endpoint's owner has gateways do: set by request, kept, and understood by the gateway itself."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from gateway.core.snapshot import load
from gateway.core.wire import Guardrail

from tests.stand_in import stand_in_cases

Call = Callable[..., Any]
MADE = {"name": "chat", "provider": "openai", "url": "https://api.example.com", "model": "m"}
RULES = [
    {"id": "no-mail", "kind": "pii", "patterns": ["email"], "action": "redact"},
    {"id": "words", "kind": "deny", "patterns": ["blue moon"], "on": ["output"]},
    {"id": "orders", "kind": "regex", "patterns": [r"\bORD-\d{4,8}\b"], "action": "observe"},
    {"id": "scan", "kind": "http", "url": "https://scan.example.com/v1", "credential": "scan", "fail_open": True},
]


@pytest.fixture
def path(call: Call, project: str) -> str:
    call("POST", f"/projects/{project}/endpoints", MADE).ok(201)
    return f"/projects/{project}/endpoints/chat"


def test_an_endpoint_has_the_usual_policy(call: Call, path: str) -> None:
    usual = {"routing": "least_outstanding", "retries": 2, "cache_ttl_s": 0, "coalesce_ms": 0, "guardrails": [],
             "traffic": [], "fallbacks": [], "hold_s": 0, "hold_queue": 64,
             "sleep_after_s": 0}  # fmt: skip
    assert call("GET", path).ok()["policy"] == usual


def test_fields_that_are_given_are_replaced(call: Call, path: str) -> None:
    call("PATCH", path, {"policy": {"cache_ttl_s": 60, "guardrails": RULES}}, "developer").ok()
    changed = call("PATCH", path, {"policy": {"coalesce_ms": 5}}).ok()["policy"]
    assert (changed["cache_ttl_s"], changed["coalesce_ms"], len(changed["guardrails"])) == (60, 5, 4)
    assert call("GET", path).ok()["policy"] == changed
    assert call("PATCH", path, {"policy": {"guardrails": []}}).ok()["policy"]["guardrails"] == []
    assert call("PATCH", path, {"policy": None}).ok()["policy"]["cache_ttl_s"] == 0
    assert call("PATCH", path, {"limits": {"budget_nanos": 5}}).ok()["policy"]["coalesce_ms"] == 0


def test_an_endpoint_can_be_made_with_its_policy(call: Call, project: str) -> None:
    body = {**MADE, "policy": {"routing": "weighted", "guardrails": RULES[:1]}}
    made = call("POST", f"/projects/{project}/endpoints", body).ok(201)
    assert made["policy"]["routing"] == "weighted" and made["policy"]["guardrails"][0]["id"] == "no-mail"


def test_the_gateway_can_use_every_policy(call: Call, project: str, path: str, gateway: Call) -> None:
    """Both sides of the wire contract at once."""
    call("PATCH", path, {"policy": {"cache_ttl_s": 60, "coalesce_ms": 7, "guardrails": RULES, "hold_s": 90}}).ok()
    call("PATCH", path, {"policy": {"hold_queue": 200}}).ok()
    call("POST", f"/projects/{project}/keys", {"name": "slow", "coalesce_ms": 40}).ok(201)
    snapshot = load(json.dumps(gateway("GET", "/gateway/config").ok()).encode())
    endpoint = snapshot.endpoints["chat"]
    assert (endpoint.policy.cache_ttl_s, endpoint.policy.coalesce_ms, endpoint.problem) == (60, 7, "")
    assert (endpoint.policy.hold_s, endpoint.policy.hold_queue) == (90, 200)
    assert endpoint.policy.guardrails[0] == Guardrail("no-mail", "pii", action="redact", patterns=["email"])
    scan = endpoint.policy.guardrails[3]
    assert (scan.url, scan.credential_ref, scan.fail_open) == ("https://scan.example.com/v1", f"{project}.scan", True)
    assert [key.coalesce_ms for key in snapshot.keys.values()] == [40]


def test_a_canary_and_a_shadow_get_their_shares(call: Call, project: str, path: str, gateway: Call) -> None:
    from functions.app.services import endpoints

    for name, urls in (("next", ["http://a:1", "http://b:1"]), ("lab", ["http://c:1"])):
        facts = {"deployment_id": f"dep_{name}", "endpoint_name": name, "project_id": project, "model_id": "mdl_1"}
        endpoints.publish(facts, {"upstreams": urls})
    shares = [{"endpoint": "next", "weight": 0.1}, {"endpoint": "lab", "weight": 0.5, "shadow": True}]
    call("PATCH", path, {"policy": {"routing": "weighted", "traffic": shares}}).ok()
    endpoint = load(json.dumps(gateway("GET", "/gateway/config").ok()).encode()).endpoints["chat"]
    [tier] = endpoint.tiers
    assert [(d.id, d.weight) for d in tier[1:]] == [("dep_next/0/chat", 0.05), ("dep_next/1/chat", 0.05)]
    assert [d.wire.endpoint for d in (*tier, *endpoint.shadows)] == ["", "next", "next", "lab"]
    assert tier[0].weight == pytest.approx(0.9) and endpoint.policy.routing == "weighted"
    assert [(d.id, d.weight, d.host) for d in endpoint.shadows] == [("dep_lab/chat-shadow", 0.5, "c")]
    endpoints.unpublish("dep_next")
    endpoint = load(json.dumps(gateway("GET", "/gateway/config").ok()).encode()).endpoints["chat"]
    assert [len(tier) for tier in endpoint.tiers] == [1]


def test_fallbacks_are_asked_in_turn_and_lead_in_no_circle(call: Call, project: str, path: str, gateway: Call) -> None:
    for name in ("second", "third", "round"):
        call("POST", f"/projects/{project}/endpoints", {**MADE, "name": name}).ok(201)
    other = call("POST", "/projects", {"name": "other"}).ok(201)["id"]
    call("POST", f"/projects/{other}/endpoints", {**MADE, "name": "theirs"}).ok(201)
    asked = ["second", "chat", "gone", "theirs", "round", "third", "second"]
    call("PATCH", path, {"policy": {"fallbacks": asked}}).ok()
    call("PATCH", f"/projects/{project}/endpoints/round", {"policy": {"fallbacks": ["chat"]}}).ok()
    endpoints = load(json.dumps(gateway("GET", "/gateway/config").ok()).encode()).endpoints
    assert [endpoint.name for endpoint in endpoints["chat"].chain] == ["chat", "second", "third"]
    assert [endpoint.name for endpoint in endpoints["round"].chain] == ["round"]
    assert call("GET", path).ok()["policy"]["fallbacks"] == asked


def test_a_fallback_has_no_limits_or_guardrails_that_requests_pass_by(call: Call, project: str, path: str) -> None:
    endpoints = f"/projects/{project}/endpoints"
    capped, guarded = {"limits": {"requests_per_minute": 1}}, {"policy": {"guardrails": RULES[:1]}}
    for name, own in (("capped", capped), ("guarded", guarded), ("open", {})):
        call("POST", endpoints, {**MADE, "name": name, **own}).ok(201)
    for name in ("capped", "guarded"):
        problem = call("PATCH", path, {"policy": {"fallbacks": [name]}}).problem(422, "fallback_guarded")
        assert name in problem["detail"] and "fallbacks of chat" in problem["next_action"]
    call("PATCH", path, {"policy": {"fallbacks": ["open", "later"]}}).ok()
    for change in (capped, guarded):
        call("PATCH", f"{endpoints}/open", change).problem(422, "fallback_guarded")
        call("POST", endpoints, {**MADE, "name": "later", **change}).problem(422, "fallback_guarded")
    call("PATCH", path, {"policy": {"fallbacks": []}}).ok()
    call("PATCH", f"{endpoints}/open", capped).ok()


def test_a_fallback_may_have_the_same_guardrails(call: Call, project: str, path: str) -> None:
    same = {"policy": {"guardrails": RULES[:1]}}
    call("POST", f"/projects/{project}/endpoints", {**MADE, "name": "second", **same}).ok(201)
    call("PATCH", path, {"policy": {"guardrails": RULES[:1], "fallbacks": ["second"]}}).ok()
    call("PATCH", path, {"policy": {"guardrails": []}}).problem(422, "fallback_guarded")


@pytest.mark.parametrize("shadow", [True, False])
def test_canaries_and_shadows_pass_no_limits_or_guardrails_by(
    call: Call, project: str, path: str, shadow: bool
) -> None:
    capped, guarded = {"limits": {"requests_per_minute": 1}}, {"policy": {"guardrails": RULES[:1]}}
    for change in (capped, guarded):
        call("POST", f"/projects/{project}/endpoints", {**MADE, "name": "next", **change}).ok(201)
        shares = {"policy": {"routing": "weighted", "traffic": [{"endpoint": "next", "weight": 0.5, "shadow": shadow}]}}
        problem = call("PATCH", path, shares).problem(422, "traffic_guarded")
        assert "next" in problem["detail"] and "traffic of chat" in problem["next_action"]
        call("PATCH", f"/projects/{project}/endpoints/next", {"limits": None, "policy": None}).ok()
        call("PATCH", path, shares).ok()
        call("PATCH", f"/projects/{project}/endpoints/next", change).problem(422, "traffic_guarded")
        call("PATCH", path, {"policy": None}).ok()
        call("DELETE", f"/projects/{project}/endpoints/next").ok(204)


def test_who_may_stand_in_is_what_gateways_take(call: Call, project: str) -> None:
    path = f"/projects/{project}/endpoints"
    for case in stand_in_cases():
        call("POST", path, {**MADE, "name": "other", **case["other"]}).ok(201)
        policy = {**case["asked"].get("policy", {}), "fallbacks": ["other"]}
        answer = call("POST", path, {**MADE, "name": "asked", **case["asked"], "policy": policy})
        assert answer.status == (201 if case["stands_in"] else 422), case["why"]
        call("DELETE", f"{path}/other").ok(204)
        if case["stands_in"]:
            call("DELETE", f"{path}/asked").ok(204)


def test_adapters_are_called_as_models(call: Call, project: str, path: str, gateway: Call) -> None:
    asked = {"support": "org/support-v2", "org/legal": "legal"}
    assert call("PATCH", path, {"adapters": asked}, "developer").ok()["adapters"] == asked
    endpoints = load(json.dumps(gateway("GET", "/gateway/config").ok()).encode()).endpoints
    assert endpoints["org/legal"] is endpoints["support"] is endpoints["chat"]
    assert endpoints["chat"].adapters == asked
    assert call("PATCH", path, {"adapters": {"support": "org/support-v3"}}).ok()["adapters"]["support"].endswith("v3")
    assert list(load(json.dumps(gateway("GET", "/gateway/config").ok()).encode()).endpoints) == ["chat", "support"]
    assert [e["name"] for e in call("GET", f"/projects/{project}/endpoints").ok()["items"]] == ["chat"]
    call("GET", f"/projects/{project}/endpoints/support").problem(404, "endpoint_not_found")


def test_adapters_are_not_shared_with_engines_that_do_not_serve_them(
    call: Call, project: str, path: str, gateway: Call
) -> None:
    from functions.app.store.table import EndpointItem

    adapters = {"adapters": {"support": "org/support-v2"}}
    shares = {"policy": {"routing": "weighted", "traffic": [{"endpoint": "next", "weight": 0.5, "shadow": False}]}}
    call("POST", f"/projects/{project}/endpoints", {**MADE, "name": "next"}).ok(201)
    body = {**MADE, "name": "both", **adapters, **shares}
    call("POST", f"/projects/{project}/endpoints", body).problem(422, "adapters_shared")
    call("PATCH", path, shares).ok()
    assert "traffic" in call("PATCH", path, adapters).problem(422, "adapters_shared")["next_action"]
    call("PATCH", path, {"policy": None}).ok()
    call("PATCH", path, adapters).ok()
    call("PATCH", path, shares).problem(422, "adapters_shared")
    [stored] = [item for item in EndpointItem.scan() if item.data["name"] == "chat"]  # before it was refused
    stored.data["policy"] |= shares["policy"]
    stored.save()
    [[only]] = load(json.dumps(gateway("GET", "/gateway/config").ok()).encode()).endpoints["chat"].tiers
    assert (only.weight, "/" in only.id) == (1.0, False)


def test_a_name_belongs_to_one_endpoint_or_adapter(call: Call, project: str, path: str) -> None:
    from functions.app.services import endpoints

    other = call("POST", "/projects", {"name": "gamma"}).ok(201)["id"]
    call("PATCH", path, {"adapters": {"tuned": "t"}}).ok()
    call("PATCH", path, {"adapters": {"chat": "t"}}).problem(409, "name_taken")
    for body in (
        {"name": "tuned"},
        {"name": "mine", "adapters": {"tuned": "t"}},
        {"name": "me", "adapters": {"me": "t"}},
    ):
        call("POST", f"/projects/{other}/endpoints", {**MADE, **body}).problem(409, "name_taken")
    facts = {"deployment_id": "dep_t", "endpoint_name": "tuned", "project_id": other, "model_id": "mdl_1"}
    with pytest.raises(endpoints.NameTaken):
        endpoints.publish(facts, {"upstreams": ["http://a:1"]})
    call("PATCH", path, {"adapters": None}).ok()
    call("POST", f"/projects/{other}/endpoints", {**MADE, "name": "tuned", "adapters": {"fine": "t"}}).ok(201)
    call("DELETE", f"/projects/{other}/endpoints/tuned").ok(204)
    call("PATCH", path, {"adapters": {"tuned": "t", "fine": "t"}}).ok()


def test_adapters_outlast_another_publication(call: Call, project: str) -> None:
    from functions.app.services import endpoints

    facts = {"deployment_id": "dep_a", "endpoint_name": "own", "project_id": project, "model_id": "mdl_1"}
    endpoints.publish(facts, {"upstreams": ["http://a:1"]})
    call("PATCH", f"/projects/{project}/endpoints/own", {"adapters": {"tuned": "t"}}).ok()
    assert endpoints.publish(facts, {"upstreams": ["http://b:1"]}).adapters == {"tuned": "t"}


@pytest.mark.parametrize(
    "adapters", [{"": "x"}, {"x": ""}, {"a b": "x"}, {"x": "../x"}, {f"n{i}": "x" for i in range(33)}]
)
def test_adapters_that_no_engine_serves_are_refused(call: Call, path: str, adapters: dict[str, str]) -> None:
    call("PATCH", path, {"adapters": adapters}).problem(422, "invalid_request")


def test_another_project_s_endpoint_gets_no_share(call: Call, path: str, gateway: Call) -> None:
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    call("POST", f"/projects/{other}/endpoints", {**MADE, "name": "theirs"}).ok(201)
    traffic = [{"endpoint": "theirs", "weight": 1, "shadow": True}]
    call("PATCH", path, {"policy": {"traffic": traffic}}).ok()
    endpoint = load(json.dumps(gateway("GET", "/gateway/config").ok()).encode()).endpoints["chat"]
    assert endpoint.shadows == ()


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"cache_ttl_s": -1}, "cache_ttl_s"),
        ({"coalesce_ms": 1001}, "coalesce_ms"),
        ({"routing": "random"}, "routing"),
        ({"fallbacks": ["../other"]}, "fallbacks"),
        ({"hold_s": 3601}, "hold_s"),
        ({"hold_queue": 0}, "hold_queue"),
        ({"hold_s": 60, "sleep_after_s": 899}, "at least 900"),
        ({"hold_queue": 10_001}, "hold_queue"),
        ({"traffic": [{"endpoint": "next", "weight": 0.1}]}, "routing weighted"),
        ({"traffic": [{"endpoint": "next", "weight": 1.5, "shadow": True}]}, "weight"),
        ({"routing": "weighted", "traffic": [{"endpoint": f"e{n}", "weight": 0.5} for n in (1, 2)]}, "less than all"),
        ({"traffic": [{"endpoint": "next", "weight": w, "shadow": True} for w in (0.1, 0.2)]}, "named twice"),
        ({"guardrails": [{"id": "a", "kind": "pii", "patterns": ["shoe size"]}]}, "email"),
        ({"guardrails": [{"id": "a", "kind": "deny"}]}, "needs patterns"),
        ({"guardrails": [{"id": "a", "kind": "regex", "patterns": ["(a"]}]}, "not a pattern"),
        ({"guardrails": [{"id": "a", "kind": "http"}]}, "url"),
        ({"guardrails": [{"id": "a", "kind": "http", "url": "http://169.254.169.254/latest"}]}, "https URL"),
        ({"guardrails": [{"id": "a", "kind": "pii", "url": "https://a.example.com"}]}, "url"),
        ({"guardrails": [{"id": "a", "kind": "pii", "credential": "../x"}]}, "credential"),
        ({"guardrails": [{"id": "a", "kind": "pii"}, {"id": "a", "kind": "pii"}]}, "same id"),
        ({"guardrails": [{"id": "a", "kind": "deny", "patterns": ["x" * 500] * 101}]}, "50,000 characters"),
    ],
)
def test_what_a_gateway_could_not_use_is_refused(call: Call, path: str, policy: dict[str, Any], said: str) -> None:
    problem = call("PATCH", path, {"policy": policy}).problem(422, "invalid_request")
    assert said in json.dumps(problem)
    assert call("GET", path).ok()["policy"]["guardrails"] == []


def test_a_deployment_that_moves_keeps_its_policy(call: Call, project: str) -> None:
    from functions.app.services import endpoints

    facts = {"deployment_id": "dep_1", "endpoint_name": "own", "project_id": project, "model_id": "mdl_1"}
    endpoints.publish(facts, {"upstreams": ["http://a:1"]})
    path = f"/projects/{project}/endpoints/own"
    call("PATCH", path, {"policy": {"cache_ttl_s": 9}}).ok()
    endpoints.publish(facts, {"upstreams": ["http://b:1"]})
    assert call("GET", path).ok()["policy"]["cache_ttl_s"] == 9


def test_a_stored_scanner_inside_is_still_read_and_closes_its_endpoint(call: Call, path: str, gateway: Call) -> None:
    """It was accepted once. No gateway is told its address; what is written now is refused."""
    from functions.app.store.table import EndpointItem

    inside = {"id": "scan", "kind": "http", "url": "http://scan.internal:8080/v1"}
    call("PATCH", path, {"policy": {"guardrails": [{**inside, "url": "https://scan.example.com"}]}}).ok()
    [item] = [item for item in EndpointItem.scan() if item.data["name"] == "chat"]
    item.data["policy"]["guardrails"][0]["url"] = inside["url"]
    item.save()
    assert call("GET", path).ok()["policy"]["guardrails"][0]["url"] == inside["url"]
    changed = call("PATCH", path, {"policy": {"cache_ttl_s": 9}}).ok()["policy"]
    assert (changed["cache_ttl_s"], changed["guardrails"][0]["url"]) == (9, inside["url"])
    document = json.dumps(gateway("GET", "/gateway/config").ok())
    assert "scan.internal" not in document
    assert "guardrail scan" in load(document.encode()).endpoints["chat"].problem
    problem = call("PATCH", path, {"policy": {"guardrails": [inside]}}).problem(422, "invalid_request")
    assert "public host name" in json.dumps(problem)


def test_a_stored_policy_that_names_an_endpoint_twice_is_still_read(call: Call, path: str, gateway: Call) -> None:
    """It was accepted once; only what is written now is refused."""
    from functions.app.store.table import EndpointItem

    shares = [{"endpoint": "next", "weight": w, "shadow": True} for w in (0.1, 0.2)]
    [item] = [item for item in EndpointItem.scan() if item.data["name"] == "chat"]
    item.data["policy"]["traffic"] = shares
    item.save()
    assert call("GET", path).ok()["policy"]["traffic"] == shares[:1]
    gateway("GET", "/gateway/config").ok()
    changed = call("PATCH", path, {"policy": {"cache_ttl_s": 9}}).ok()["policy"]
    assert (changed["cache_ttl_s"], changed["traffic"]) == (9, shares[:1])
    call("PATCH", path, {"policy": {"traffic": shares}}).problem(422, "invalid_request")
