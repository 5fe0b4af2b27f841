"""Endpoints that an external provider answers: made by hand, served by gateways, withdrawn by hand."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from gateway.core.snapshot import load

Call = Callable[..., Any]
CLAUDE = {
    "name": "claude", "provider": "anthropic", "url": "https://api.anthropic.com/", "model": "claude-x",
    "credential": "anthropic", "price": {"input_nanos_per_token": 3000, "output_nanos_per_token": 15000},
}  # fmt: skip


def test_gateways_are_told_where_it_is_and_with_what_key(call: Call, project: str, gateway: Call) -> None:
    answer = call("POST", f"/projects/{project}/endpoints", {**CLAUDE, "limits": {"budget_nanos": 5}})
    made = answer.ok(201)
    assert answer.headers["location"] == f"/projects/{project}/endpoints/claude"
    assert (made["provider"], made["model_id"]) == ("anthropic", None) and "api.anthropic" not in str(made)
    assert call("GET", f"/projects/{project}/endpoints").ok()["items"] == [made]
    [endpoint] = gateway("GET", "/gateway/config").ok()["endpoints"]
    [[backend]] = endpoint["tiers"]
    assert backend == {
        "id": made["deployment_ids"][0], "url": "https://api.anthropic.com", "model": "claude-x", "source": "live",
        "provider": "anthropic", "credential_ref": f"{project}.anthropic",
        "weight": 1.0, "shadow": False, "asleep": False, "endpoint": "",
    }  # fmt: skip
    assert endpoint["limits"]["budget_nanos"] == 5 and endpoint["price"]["output_nanos_per_token"] == 15000


def test_the_gateway_takes_the_config(call: Call, project: str, gateway: Call) -> None:
    """Both sides of the wire contract at once."""
    call("POST", f"/projects/{project}/endpoints", CLAUDE).ok(201)
    snapshot = load(json.dumps(gateway("GET", "/gateway/config").ok()).encode())
    [[deployment]] = snapshot.endpoints["claude"].tiers
    assert (deployment.provider, deployment.credential_ref) == ("anthropic", f"{project}.anthropic")


def test_only_owners_say_where_a_credential_is_sent(call: Call, project: str, join: Any) -> None:
    member, owner = join(project, "member"), join(project, "owner")
    path = f"/projects/{project}/endpoints"
    call("POST", path, CLAUDE, member).problem(403, "forbidden")
    call("POST", path, CLAUDE, owner).ok(201)
    scanner = {"id": "scan", "kind": "http", "url": "https://scan.example.com", "credential": "anthropic"}
    asks = {"policy": {"guardrails": [scanner]}}
    call("PATCH", f"{path}/claude", asks, member).problem(403, "forbidden")
    call("PATCH", f"{path}/claude", asks, owner).ok()
    call("PATCH", f"{path}/claude", {"policy": {"cache_ttl_s": 5}}, member).ok()


def test_a_name_is_there_once_and_free_again_afterwards(call: Call, project: str, gateway: Call) -> None:
    call("POST", f"/projects/{project}/endpoints", CLAUDE).ok(201)
    call("POST", f"/projects/{project}/endpoints", CLAUDE).problem(409, "name_taken")
    call("DELETE", f"/projects/{project}").problem(409, "project_in_use")
    call("DELETE", f"/projects/{project}/endpoints/claude").ok(204)
    assert gateway("GET", "/gateway/config").ok()["endpoints"] == []
    call("DELETE", f"/projects/{project}/endpoints/claude").problem(404, "endpoint_not_found")
    call("POST", f"/projects/{project}/endpoints", CLAUDE).ok(201)


@pytest.mark.parametrize(
    "url",
    ["http://api.example.com", "https://10.0.0.1", "https://localhost", "https://[::ffff:10.0.0.1]", "https://0x7f.1", "https://u:p@example.com",
     "ftp://example.com", "https://example.com?x=1", "not a url", "https://x.default.svc.cluster.local",
     "https://metadata.google.internal", "https://kubernetes.default.svc"],
)  # fmt: skip
def test_only_addresses_outside_are_taken(call: Call, project: str, url: str) -> None:
    call("POST", f"/projects/{project}/endpoints", {**CLAUDE, "url": url}).problem(422, "invalid_request")


@pytest.mark.parametrize(
    "url",
    ["https://api.example.com:abc", "https://api.example.com:99999", "https://api.example.com:0", "https://api.example.com/é",
     "https://api.example.com/\r\nx", "https://api.example.com/\0", "https://api.example.com/a b", "https://api.example.com\\x"],
)  # fmt: skip
def test_nothing_is_taken_that_a_gateway_cannot_read(call: Call, project: str, url: str) -> None:
    """One such address would make every gateway refuse its whole config."""
    call("POST", f"/projects/{project}/endpoints", {**CLAUDE, "url": url}).problem(422, "invalid_request")
    scanner = {"id": "scan", "kind": "http", "url": url}
    policy = {"policy": {"guardrails": [scanner]}}
    call("POST", f"/projects/{project}/endpoints", {**CLAUDE, **policy}).problem(422, "invalid_request")


def test_a_stored_address_inside_is_still_read_and_no_gateway_calls_it(call: Call, project: str, gateway: Call) -> None:
    """It was accepted once. The endpoint is closed with the reason, and gets no share of others."""
    from functions.app.store.table import EndpointItem

    path = f"/projects/{project}/endpoints"
    for name in ("claude", "front"):
        call("POST", path, {**CLAUDE, "name": name}).ok(201)
    shares = [{"endpoint": "claude", "weight": 0.5, "shadow": shadow} for shadow in (True, False)]
    policy = {"routing": "weighted", "traffic": shares, "fallbacks": ["claude"]}
    call("PATCH", f"{path}/front", {"policy": policy}).ok()
    [item] = [item for item in EndpointItem.scan() if item.data["name"] == "claude"]
    item.data["backends"][0]["url"] = "https://metadata.google.internal/v1"
    item.save()
    assert call("GET", f"{path}/claude").ok()["provider"] == "anthropic"
    call("PATCH", f"{path}/claude", {"policy": {"cache_ttl_s": 5}}).ok()
    document = json.dumps(gateway("GET", "/gateway/config").ok())
    assert "google.internal" not in document
    endpoints = load(document.encode()).endpoints
    assert "public host name" in endpoints["claude"].problem and endpoints["claude"].tiers == ((),)
    front = endpoints["front"]
    assert [d.host for tier in front.tiers for d in tier] == ["api.anthropic.com"]
    assert (front.problem, front.shadows, front.chain) == ("", (), (front,))


def test_an_engine_of_ours_may_be_anywhere(project: str, gateway: Call) -> None:
    from functions.app.services import endpoints

    facts = {"deployment_id": "dep_1", "endpoint_name": "own", "project_id": project, "model_id": "mdl_1"}
    endpoints.publish(facts, {"upstreams": ["http://own.default.svc.cluster.local:8000"]})
    [endpoint] = gateway("GET", "/gateway/config").ok()["endpoints"]
    assert endpoint["problem"] == "" and "svc" in endpoint["tiers"][0][0]["url"]


@pytest.mark.parametrize("field", [{"provider": "acme"}, {"credential": "../x"}, {"credential": "a.b"}, {"extra": 1}])
def test_what_is_not_known_is_refused(call: Call, project: str, field: dict[str, Any]) -> None:
    call("POST", f"/projects/{project}/endpoints", {**CLAUDE, **field}).problem(422, "invalid_request")
