"""API keys: the secret is shown once, kept as a hash, and gateways see every change."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from foundry_core import aws
from foundry_core.clock import fixed

Call = Callable[..., Any]
KEY = {"name": "app-one", "models": ["chat", "org/adapter-v2"], "cidrs": ["10.0.0.0/8"],
       "limits": {"requests_per_minute": 60, "budget_nanos": 5_000_000_000}}  # fmt: skip


def everything_stored() -> str:
    tables = aws.client("dynamodb").list_tables()["TableNames"]
    return json.dumps([aws.client("dynamodb").scan(TableName=name)["Items"] for name in tables], default=str)


def test_the_secret_is_shown_once_and_kept_as_a_hash(call: Call, project: str) -> None:
    key = call("POST", f"/projects/{project}/keys", KEY, headers={"idempotency-key": "k1"}).ok(201)
    assert key["secret"].startswith("fk-") and key["hint"] == key["secret"][-4:]
    assert "secret" not in call("GET", f"/projects/{project}/keys/{key['id']}").ok()
    assert "secret" not in call("GET", f"/projects/{project}/keys").ok()["items"][0]
    stored = everything_stored()
    assert key["secret"] not in stored
    assert hashlib.sha256(key["secret"].encode()).hexdigest() in stored


def test_a_replay_gets_the_first_answer_without_the_secret(call: Call, project: str) -> None:
    first = call("POST", f"/projects/{project}/keys", KEY, headers={"idempotency-key": "k1"}).ok(201)
    again = call("POST", f"/projects/{project}/keys", KEY, headers={"idempotency-key": "k1"}).ok(201)
    assert again == {**first, "secret": None}
    assert len(call("GET", f"/projects/{project}/keys").ok()["items"]) == 1


def test_a_gateway_sees_a_key_as_it_is_and_not_after_it_was_revoked(call: Call, project: str, gateway: Call) -> None:
    key = call("POST", f"/projects/{project}/keys", KEY).ok(201)
    assert gateway("GET", "/gateway/config").ok()["keys"] == [{
        "id": key["id"], "sha256": hashlib.sha256(key["secret"].encode()).hexdigest(), "project_id": project,
        "expires_at_ms": None, "models": ["chat", "org/adapter-v2"], "cidrs": ["10.0.0.0/8"],
        "limits": {"requests_per_minute": 60, "tokens_per_minute": None, "budget_nanos": 5_000_000_000},
        "coalesce_ms": None,
    }]  # fmt: skip
    call("DELETE", f"/projects/{project}/keys/{key['id']}").ok(204)
    assert gateway("GET", "/gateway/config").ok()["keys"] == []
    call("GET", f"/projects/{project}/keys/{key['id']}").problem(404, "key_not_found")
    call("DELETE", f"/projects/{project}/keys/{key['id']}").problem(404, "key_not_found")


def test_patch_replaces_what_is_given_and_null_lifts_a_restriction(call: Call, project: str) -> None:
    path = f"/projects/{project}/keys/{call('POST', f'/projects/{project}/keys', KEY).ok(201)['id']}"
    changed = call("PATCH", path, {"cidrs": None, "limits": {"tokens_per_minute": 9, "budget_nanos": None}}).ok()
    assert changed["cidrs"] is None and changed["models"] == KEY["models"] and changed["name"] == "app-one"
    assert changed["limits"] == {"requests_per_minute": 60, "tokens_per_minute": 9, "budget_nanos": None}
    assert call("PATCH", path, {"limits": None}).ok()["limits"]["requests_per_minute"] is None
    assert call("GET", path).ok()["limits"]["tokens_per_minute"] is None


def test_names_are_unique_in_the_project_and_free_again_after_a_rename(call: Call, project: str) -> None:
    keys = f"/projects/{project}/keys"
    first = call("POST", keys, {"name": "one"}).ok(201)
    call("POST", keys, {"name": "one"}).problem(409, "name_taken")
    second = call("POST", keys, {"name": "two"}).ok(201)
    call("PATCH", f"{keys}/{second['id']}", {"name": "one"}).problem(409, "name_taken")
    assert call("GET", f"{keys}/{second['id']}").ok()["name"] == "two"
    call("PATCH", f"{keys}/{first['id']}", {"name": "three"}).ok()
    assert call("PATCH", f"{keys}/{second['id']}", {"name": "one"}).ok()["name"] == "one"
    call("DELETE", f"{keys}/{second['id']}").ok(204)
    call("POST", keys, {"name": "one"}).ok(201)


def test_if_match_refuses_a_stale_writer(call: Call, project: str) -> None:
    path = f"/projects/{project}/keys/{call('POST', f'/projects/{project}/keys', {'name': 'one'}).ok(201)['id']}"
    tag = call("GET", path).headers["etag"]
    assert call("GET", path, headers={"if-none-match": tag}).status == 304
    renewed = call("PATCH", path, {"name": "two"}, headers={"if-match": tag})
    assert renewed.status == 200 and renewed.headers["etag"] != tag
    call("PATCH", path, {"name": "three"}, headers={"if-match": tag}).problem(412, "precondition_failed")
    assert call("GET", path).ok()["name"] == "two"
    assert call("GET", path, headers={"if-none-match": tag}).status == 200


def test_a_key_of_another_project_does_not_exist_here(call: Call, project: str) -> None:
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    key = call("POST", f"/projects/{other}/keys", {"name": "one"}).ok(201)["id"]
    for method, body in (("GET", None), ("PATCH", {}), ("DELETE", None)):
        call(method, f"/projects/{project}/keys/{key}", body).problem(404, "key_not_found")


def test_no_key_for_a_project_that_is_gone(call: Call) -> None:
    call("POST", "/projects/prj_gone/keys", {"name": "one"}).problem(404, "project_not_found")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "Schlüssel"}, "name"),
        ({"name": "-a"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "a" * 64}, "name"),
        ({"name": ["a"]}, "name"),
        ({"cidrs": ["10.0.0.0/33"]}, "cidrs.0"),
        ({"cidrs": ["localhost"]}, "cidrs.0"),
        ({"models": ["a b"]}, "models.0"),
        ({"models": "chat"}, "models"),
        ({"limits": {"budget_nanos": -1}}, "limits.budget_nanos"),
        ({"limits": {"budget_nanos": 1.5}}, "limits.budget_nanos"),
        ({"limits": {"budget_nanos": 10**19}}, "limits.budget_nanos"),
        ({"limits": {"budget": 1}}, "limits.budget"),
        ({"expires_at_ms": "soon"}, "expires_at_ms"),
        ({"secret": "fk-mine"}, "secret"),
        ({"sha256": "0" * 64}, "sha256"),
    ],
)
def test_a_bad_field_is_named_and_nothing_is_made(call: Call, project: str, change: Any, field: str) -> None:
    problem = call("POST", f"/projects/{project}/keys", {"name": "one", **change}).problem(422, "invalid_request")
    assert field in {error["field"] for error in problem["errors"]}
    assert call("GET", f"/projects/{project}/keys").ok()["items"] == []


def test_a_time_that_has_passed_is_refused(call: Call, project: str) -> None:
    with fixed(1_800_000_000_000):
        body = {"name": "one", "expires_at_ms": 1_800_000_000_000}
        call("POST", f"/projects/{project}/keys", body).problem(422, "invalid_request")
        call("POST", f"/projects/{project}/keys", {**body, "expires_at_ms": 1_800_000_000_001}).ok(201)


def test_changes_are_announced(call: Call, project: str, outbox: Callable[[], list[dict[str, Any]]]) -> None:
    key = call("POST", f"/projects/{project}/keys", {"name": "one"}, "admin").ok(201)["id"]
    call("DELETE", f"/projects/{project}/keys/{key}").ok(204)
    events = {event["type"]: event for event in outbox() if event["subject"] == key}
    assert events.keys() == {"foundry.key.created.v1", "foundry.key.revoked.v1"}
    assert events["foundry.key.created.v1"]["data"] == {"project_id": project, "key_id": key, "by": "u-admin"}
