"""Projects, members and endpoints: names, ownership, pages, and what gateways are told."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from foundry_core import aws
from foundry_core.principal import Principal, Role

Call = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("user_pool")


@pytest.fixture
def person(call: Call) -> Callable[[str], str]:
    """``person("ann")``: the id of a new user with that name in the address."""
    return lambda name: str(call("POST", "/users", {"email": f"{name}@example.com"}).ok(201)["id"])


def test_the_creator_becomes_the_owner(call: Call, people: dict[str, Principal]) -> None:
    answer = call("POST", "/projects", {"name": "alpha", "description": "Größe & 尺寸"}, "developer")
    project = answer.ok(201)
    assert answer.headers["location"] == f"/projects/{project['id']}"
    assert call("GET", f"/projects/{project['id']}", None, "developer").ok() == project
    (member,) = call("GET", f"/projects/{project['id']}/members", None, "developer").ok()["items"]
    assert (member["user_id"], member["level"]) == (people["developer"].user_id, "owner")
    assert call("GET", "/me", None, "developer").ok()["memberships"] == [
        {"project_id": project["id"], "level": "owner"}
    ]


def test_an_owner_is_shown_by_address(call: Call, person: Callable[[str], str]) -> None:
    """As with Cognito, where the access token's username is the id."""
    ann = person("ann")
    project = call("POST", "/projects", {"name": "alpha"}, Principal(ann, ann, frozenset({Role.DEVELOPER}))).ok(201)
    (owner,) = call("GET", f"/projects/{project['id']}/members").ok()["items"]
    assert (owner["user_id"], owner["username"]) == (ann, "ann@example.com")


def test_people_see_their_projects_and_operators_all(call: Call, project: str, join: Any) -> None:
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    viewer = join(other, "viewer", role="client")

    def seen(who: Any) -> set[str]:
        return {one["id"] for one in call("GET", "/projects", None, who).ok()["items"]}

    assert seen("developer") == {project} and seen("client") == set()
    assert seen("operator") == seen("auditor") == seen("admin") == {project, other}
    assert viewer.user_id not in str(call("GET", "/projects").body)


def test_a_taken_name_and_a_freed_one(call: Call, project: str) -> None:
    call("POST", "/projects", {"name": "alpha"}).problem(409, "name_taken")
    beta = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    call("PATCH", f"/projects/{beta}", {"name": "alpha"}).problem(409, "name_taken")
    call("PATCH", f"/projects/{project}", {"name": "gamma"}).ok()
    assert call("PATCH", f"/projects/{beta}", {"name": "alpha"}).ok()["name"] == "alpha"
    call("DELETE", f"/projects/{beta}").ok(204)
    call("POST", "/projects", {"name": "alpha"}).ok(201)


def test_limits_reach_the_gateways(call: Call, project: str, gateway: Call) -> None:
    call("PATCH", f"/projects/{project}", {"limits": {"budget_nanos": 7}}).ok()
    limits = {"requests_per_minute": None, "tokens_per_minute": None, "budget_nanos": 7}
    assert gateway("GET", "/gateway/config").ok()["projects"] == [
        {"id": project, "limits": limits, "capture_bodies": False}
    ]
    call("PATCH", f"/projects/{project}", {"limits": {"budget_nanos": None}}).ok()
    assert gateway("GET", "/gateway/config").ok()["projects"] == []


def test_if_match_refuses_a_stale_writer(call: Call, project: str) -> None:
    path = f"/projects/{project}"
    tag = call("GET", path).headers["etag"]
    call("POST", f"{path}/keys", {"name": "one"}).ok(201)  # does not change the project as it is shown
    call("PATCH", path, {"description": "a"}, headers={"if-match": tag}).ok()
    call("PATCH", path, {"description": "b"}, headers={"if-match": tag}).problem(412, "precondition_failed")
    assert call("GET", path).ok()["description"] == "a"


def test_members_come_by_address_and_change_level(call: Call, project: str, person: Callable[[str], str]) -> None:
    members = f"/projects/{project}/members"
    ann = person("ann")
    put = call("PUT", f"{members}/ann@example.com", {"level": "viewer"}, "developer").ok()
    assert (put["user_id"], put["username"], put["level"]) == (ann, "ann@example.com", "viewer")
    again = call("PUT", f"{members}/{ann}", {"level": "member"}, "developer").ok()
    assert again == {**put, "level": "member"}
    assert len(call("GET", members).ok()["items"]) == 2
    call("DELETE", f"{members}/{ann}", None, "developer").ok(204)
    call("DELETE", f"{members}/{ann}", None, "developer").problem(404, "member_not_found")
    call("PUT", f"{members}/nobody@example.com", {"level": "member"}).problem(404, "user_not_found")
    call("PUT", f"{members}/{ann}", {"level": "king"}).problem(422, "invalid_request")


def test_authority_follows_the_membership_at_once(call: Call, project: str, person: Callable[[str], str]) -> None:
    ann = Principal(person("ann"), "ann@example.com", frozenset({Role.DEVELOPER}))
    keys, member = f"/projects/{project}/keys", f"/projects/{project}/members/{ann.user_id}"
    call("POST", keys, {"name": "one"}, ann).problem(404, "project_not_found")
    call("PUT", member, {"level": "member"}).ok()
    call("POST", keys, {"name": "one"}, ann).ok(201)
    call("PUT", member, {"level": "viewer"}).ok()
    call("POST", keys, {"name": "two"}, ann).problem(403, "forbidden")
    call("DELETE", member).ok(204)
    call("GET", keys, None, ann).problem(404, "project_not_found")


def test_the_last_owner_stays(call: Call, project: str, people: dict[str, Principal], person: Any) -> None:
    members = f"/projects/{project}/members"
    owner = people["developer"].user_id
    call("DELETE", f"{members}/{owner}").problem(409, "last_owner")
    call("PUT", f"{members}/{person('ann')}", {"level": "owner"}).ok()
    call("DELETE", f"{members}/{owner}").ok(204)


def test_two_owners_cannot_leave_at_the_same_time(call: Call, project: str, join: Any) -> None:
    owners = [join(project, "owner", user_id=f"u-{n}").user_id for n in range(6)] + ["u-developer"]
    with ThreadPoolExecutor(7) as pool:
        codes = list(pool.map(lambda who: call("DELETE", f"/projects/{project}/members/{who}").status, owners))
    left = call("GET", f"/projects/{project}/members").ok()["items"]
    assert [one["level"] for one in left].count("owner") >= 1
    assert codes.count(204) == 7 - len(left)


def test_deleting_a_project_revokes_its_keys_and_forgets_its_members(
    call: Call, project: str, gateway: Call, join: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("functions.app.store.projects._CHUNK", 2)  # several transactions
    for n in range(5):
        join(project, "viewer", user_id=f"u-{n}")
        call("POST", f"/projects/{project}/keys", {"name": f"k{n}"}).ok(201)
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    kept = call("POST", f"/projects/{other}/keys", {"name": "kept"}).ok(201)["id"]
    call("DELETE", f"/projects/{project}").ok(204)
    call("GET", f"/projects/{project}").problem(404, "project_not_found")
    assert [key["id"] for key in gateway("GET", "/gateway/config").ok()["keys"]] == [kept]
    assert call("GET", "/me", None, "developer").ok()["memberships"] == []
    left = aws.client("dynamodb").scan(TableName="foundry-test-app")["Items"]
    assert not [item for item in left if project in item["pk"]["S"] and not item["pk"]["S"].startswith("OUTBOX#")]


def test_pages_hold_everything_once(call: Call) -> None:
    ids = [call("POST", "/projects", {"name": f"p{n}"}).ok(201)["id"] for n in range(7)]
    for who in ("admin", "operator"):
        seen, cursor, pages = [], None, 0
        while pages == 0 or cursor:
            query = {"limit": 3, **({"cursor": cursor} if cursor else {})}
            page = call("GET", "/projects", None, who, **query).ok()
            seen += [one["id"] for one in page["items"]]
            cursor, pages = page["next_cursor"], pages + 1
        assert seen == ids


def test_cursors_open_nothing_else(call: Call, project: str) -> None:
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    for name in ("one", "two"):
        call("POST", f"/projects/{other}/keys", {"name": name}).ok(201)
    foreign = call("GET", f"/projects/{other}/keys", limit=1).ok()["next_cursor"]
    for cursor in (foreign, "", "x", "e30", "AAAA", "eyJwayI6MX0", "é"):
        call("GET", f"/projects/{project}/keys", cursor=cursor).problem(422, "bad_cursor")
    call("GET", f"/projects/{project}/keys", cursor="a" * 5000).problem(422, "invalid_request")
    for limit in (0, 101, -1, "many"):
        call("GET", f"/projects/{project}/keys", limit=limit).problem(422, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [None, "", "{", "[]", "null", '"a"', {}, {"name": ""}, {"name": None}, {"name": "A"}, {"name": "a_b"},
     {"name": "a" * 64}, {"name": "日本"}, {"name": {"$ne": 1}}, {"name": "a", "extra": 1},
     {"name": "a", "description": "d" * 501}, {"name": "a", "limits": {"budget_nanos": True}}],
    ids=repr,
)  # fmt: skip
def test_a_bad_body_is_refused_in_plain_words(call: Call, body: Any) -> None:
    call("POST", "/projects", body).problem(422, "invalid_request")
    assert call("GET", "/projects").ok()["items"] == []


def test_a_body_that_is_too_large(call: Call) -> None:
    call("POST", "/projects", {"name": "a", "description": "d" * 1_000_001}).problem(413, "body_too_large")


def test_a_path_that_does_not_exist(call: Call) -> None:
    call("GET", "/projects/a/b/c").problem(404, "not_found")
    call("PUT", "/projects", {}).problem(405, "method_not_allowed")
    call("GET", f"/projects/{'a' * 129}").problem(404, "project_not_found")
