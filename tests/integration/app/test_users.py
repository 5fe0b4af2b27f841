"""People in the user pool: invited, given roles, disabled and deleted by admins."""

from collections.abc import Callable
from typing import Any

import pytest
from foundry_core import aws
from foundry_core.principal import Principal, Role

Call = Callable[..., Any]


@pytest.fixture
def ann(call: Call, user_pool: str) -> Any:
    return call("POST", "/users", {"email": "Ann@Example.com", "roles": ["developer"]}).ok(201)


def groups(pool: str, user: str) -> set[str]:
    answer = aws.client("cognito-idp").admin_list_groups_for_user(UserPoolId=pool, Username=user)
    return {group["GroupName"] for group in answer["Groups"]}


def test_an_invited_person_has_the_roles(call: Call, user_pool: str, ann: Any) -> None:
    assert (ann["email"], ann["roles"], ann["enabled"]) == ("ann@example.com", ["developer"], True)
    assert groups(user_pool, ann["id"]) == {"developer"}
    answer = call("GET", f"/users/{ann['id']}")
    assert answer.ok() == call("GET", "/users/ann@example.com").ok() == ann
    assert call("GET", f"/users/{ann['id']}", headers={"if-none-match": answer.headers["etag"]}).status == 304


def test_who_am_i(call: Call) -> None:
    me = call("GET", "/me", None, "operator").ok()
    assert me == {"id": "u-operator", "username": "operator@example.com", "roles": ["operator"], "memberships": []}


def test_an_address_is_invited_once(call: Call, ann: Any) -> None:
    call("POST", "/users", {"email": "ann@example.com"}).problem(409, "name_taken")


def test_roles_are_replaced(call: Call, user_pool: str, ann: Any) -> None:
    changed = call("PATCH", f"/users/{ann['id']}", {"roles": ["operator", "auditor"]}).ok()
    assert changed["roles"] == ["auditor", "operator"] and changed["enabled"]
    assert groups(user_pool, ann["id"]) == {"operator", "auditor"}


def test_an_account_is_disabled_and_enabled(call: Call, ann: Any) -> None:
    for enabled in (False, True):
        call("PATCH", f"/users/{ann['id']}", {"enabled": enabled}).ok()
        assert call("GET", f"/users/{ann['id']}").ok()["enabled"] is enabled
    assert call("GET", f"/users/{ann['id']}").ok()["roles"] == ["developer"]


def test_nobody_takes_the_own_authority_away(call: Call, user_pool: str) -> None:
    root = call("POST", "/users", {"email": "root@example.com", "roles": ["admin"]}).ok(201)
    who = Principal(root["id"], root["email"], frozenset({Role.ADMIN}))
    for change in ({"roles": ["developer"]}, {"roles": []}, {"enabled": False}):
        call("PATCH", f"/users/{root['email']}", change, who).problem(409, "own_account")
    call("DELETE", f"/users/{root['id']}", None, who).problem(409, "own_account")
    call("PATCH", f"/users/{root['id']}", {"roles": ["admin", "operator"]}, who).ok()


def test_a_deleted_person_leaves_the_projects(call: Call, ann: Any, outbox: Callable[[], list[dict[str, Any]]]) -> None:
    project = call("POST", "/projects", {"name": "alpha"}).ok(201)["id"]
    call("PUT", f"/projects/{project}/members/{ann['id']}", {"level": "member"}).ok()
    call("DELETE", f"/users/{ann['id']}").ok(204)
    call("GET", f"/users/{ann['id']}").problem(404, "user_not_found")
    assert len(call("GET", f"/projects/{project}/members").ok()["items"]) == 1
    assert {"foundry.user.deleted.v1", "foundry.member.removed.v1"} <= {event["type"] for event in outbox()}


def test_the_last_owner_of_a_project_is_not_deleted(call: Call, ann: Any) -> None:
    who = Principal(ann["id"], ann["email"], frozenset({Role.DEVELOPER}))
    call("POST", "/projects", {"name": "alpha"}, who).ok(201)
    call("DELETE", f"/users/{ann['id']}").problem(409, "last_owner")
    call("GET", f"/users/{ann['id']}").ok()


def test_pages_hold_everybody_once(call: Call, user_pool: str) -> None:
    ids = {call("POST", "/users", {"email": f"p{n}@example.com"}).ok(201)["id"] for n in range(5)}
    seen, cursor = [], None
    while not seen or cursor:
        page = call("GET", "/users", limit=2, **({"cursor": cursor} if cursor else {})).ok()
        seen += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert len(seen) == 5 and set(seen) == ids


@pytest.mark.parametrize("user", ["nobody@example.com", 'x" or "', "%", "..", "ünïcode", "a b", "a" * 128])
def test_nobody(call: Call, user_pool: str, user: str) -> None:
    call("GET", f"/users/{user}").problem(404, "user_not_found")
    call("DELETE", f"/users/{user}").problem(404, "user_not_found")


@pytest.mark.parametrize(
    "body",
    [{}, {"email": "ann"}, {"email": "a@b@c"}, {"email": "a b@c"}, {"email": '"@c'}, {"email": "a@" + "c" * 200},
     {"email": "a@b", "roles": ["root"]}, {"email": "a@b", "roles": "admin"}, {"email": "a@b", "password": "x"}],
    ids=repr,
)  # fmt: skip
def test_a_bad_invitation(call: Call, user_pool: str, body: Any) -> None:
    call("POST", "/users", body).problem(422, "invalid_request")
    assert call("GET", "/users").ok()["items"] == []


def test_half_an_invitation_is_taken_back(call: Call, user_pool: str) -> None:
    """The group is missing: the person must not stay behind without the role."""
    aws.client("cognito-idp").delete_group(UserPoolId=user_pool, GroupName="auditor")
    assert call("POST", "/users", {"email": "ann@example.com", "roles": ["auditor"]}).status == 500
    assert call("GET", "/users").ok()["items"] == []


def test_without_a_user_pool(call: Call) -> None:
    call("GET", "/users").problem(503, "no_user_directory")
