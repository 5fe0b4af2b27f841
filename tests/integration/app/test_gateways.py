"""What gateways ask for with their own token: config by version, leases out of one counter, presigned uploads."""

import gzip
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from foundry_core import aws
from foundry_core.clock import fixed
from foundry_core.errors import TransientError

Call = Callable[..., Any]
NOW_MS = 1_800_000_000_000  # the start of a minute


@pytest.fixture
def key(call: Call, project: str) -> str:
    limits = {"budget_nanos": 1000, "requests_per_minute": 100}
    return str(call("POST", f"/projects/{project}/keys", {"name": "one", "limits": limits}).ok(201)["id"])


def ask(gateway: Call, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    sound = {"kind": "money_nanos", "lease_id": "l1", "seq": 1}
    body = {"gateway_id": "pod-1", "requests": [{**sound, **request} for request in requests]}
    leases: list[dict[str, Any]] = gateway("POST", "/gateway/leases", body).ok()["leases"]
    return leases


def test_a_token_is_shown_once_and_works_until_the_gateway_is_deleted(call: Call) -> None:
    made = call("POST", "/gateways", {"name": "edge"}, "operator", {"idempotency-key": "k"}).ok(201)
    assert made["token"].startswith("fgw-")
    assert call("POST", "/gateways", {"name": "edge"}, "operator", {"idempotency-key": "k"}).ok(201)["token"] is None
    assert "token" not in call("GET", "/gateways", None, "operator").ok()["items"][0]
    bearer = {"authorization": f"Bearer {made['token']}"}
    call("GET", "/gateway/config", None, None, bearer).ok()
    stored = str(aws.client("dynamodb").scan(TableName="foundry-test-app")["Items"])
    assert made["token"] not in stored
    call("DELETE", f"/gateways/{made['id']}", None, "operator").ok(204)
    call("GET", "/gateway/config", None, None, bearer).problem(401, "bad_gateway_token")
    call("DELETE", f"/gateways/{made['id']}", None, "operator").problem(404, "gateway_not_found")
    call("POST", "/gateways", {"name": "edge"}, "operator").ok(201)
    call("POST", "/gateways", {"name": "edge"}, "operator").problem(409, "name_taken")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer fgw-", "Basic Zmd3LQ==", "fgw-x", "Bearer fk-x", "Bearer fgw-é",
               "Bearer fgw-" + "a" * 5000]
)  # fmt: skip
def test_any_other_header_is_refused(call: Call, header: str) -> None:
    call("GET", "/gateway/config", None, None, {"authorization": header}).problem(401, "bad_gateway_token")


def test_the_config_is_sent_once_per_version(call: Call, project: str, gateway: Call) -> None:
    first = gateway("GET", "/gateway/config")
    tag = {"if-none-match": first.headers["etag"]}
    assert gateway("GET", "/gateway/config", headers=tag).status == 304
    call("POST", f"/projects/{project}/keys", {"name": "one"}).ok(201)
    second = gateway("GET", "/gateway/config", headers=tag)
    assert second.ok()["version"] == first.ok()["version"] + 1 and len(second.body["keys"]) == 1
    assert second.headers["etag"] != first.headers["etag"]


def test_a_poll_that_finds_nothing_new_does_not_read_the_config(
    call: Call, gateway: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = {"if-none-match": gateway("GET", "/gateway/config").headers["etag"]}
    monkeypatch.setattr("functions.app.store.config.every", lambda *args, **more: pytest.fail("read everything"))
    assert gateway("GET", "/gateway/config", headers=tag).status == 304


def test_the_gateway_itself_accepts_the_snapshot(call: Call, project: str, key: str, gateway: Call) -> None:
    """Both sides of the contract, without a mock in between."""
    from gateway.core import snapshot

    from functions.app.services import endpoints

    endpoints.publish(
        {"deployment_id": "dep_1", "project_id": project, "model_id": "m", "endpoint_name": "chat", "cluster_id": "c"},
        {"upstreams": ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]},
    )
    import json

    loaded = snapshot.load(json.dumps(gateway("GET", "/gateway/config").ok()).encode())
    (held,) = loaded.keys.values()
    assert (held.id, held.project_id, held.limits.budget_nanos) == (key, project, 1000)
    assert loaded.endpoints["chat"].project_ids == {project} and len(loaded.deployments) == 2


def test_a_lease_is_half_of_what_is_left_at_most(gateway: Call, key: str) -> None:
    with fixed(NOW_MS):
        (lease,) = ask(gateway, {"scope": f"key:{key}", "ceiling": 5000})
        assert (lease["granted"], lease["expires_at_ms"], lease["retry_after_ms"]) == (500, NOW_MS + 60_000, None)
        (other,) = ask(gateway, {"scope": f"key:{key}", "lease_id": "l2", "ceiling": 5000, "needed": 600})
        assert (other["granted"], other["retry_after_ms"]) == (0, 250)
        ask(gateway, {"scope": f"key:{key}", "seq": 2, "spent": 100, "close": True})
        (other,) = ask(gateway, {"scope": f"key:{key}", "lease_id": "l2", "seq": 2, "ceiling": 5000, "needed": 600})
        assert other["granted"] == 600


def test_every_kind_and_scope_in_one_message(call: Call, gateway: Call, key: str, project: str) -> None:
    call("PATCH", f"/projects/{project}", {"limits": {"tokens_per_minute": 50}}).ok()
    with fixed(NOW_MS):
        minute = {"window_ms": NOW_MS, "ceiling": 1000}
        granted = [lease["granted"] for lease in ask(
            gateway,
            {"scope": f"key:{key}", "kind": "requests", **minute},
            {"scope": f"project:{project}", "kind": "tokens", **minute},
            {"scope": f"project:{project}", "kind": "money_nanos", "ceiling": 1000},  # no such limit
            {"scope": "key:unknown", "ceiling": 1000, "spent": 3},
            {"scope": f"key:{key}", "kind": "requests", "window_ms": NOW_MS + 600_000, "ceiling": 1000},
        )]  # fmt: skip
    assert granted == [50, 25, 1000, 3, 0]


def test_a_minute_returns_everything_at_its_end(gateway: Call, key: str) -> None:
    asked = {"scope": f"key:{key}", "kind": "requests", "ceiling": 90, "needed": 90}
    with fixed(NOW_MS):
        assert ask(gateway, {**asked, "window_ms": NOW_MS})[0]["granted"] == 90
        assert ask(gateway, {**asked, "lease_id": "l2", "window_ms": NOW_MS})[0]["granted"] == 0
        (early,) = ask(gateway, {**asked, "lease_id": "l3", "window_ms": NOW_MS + 60_000})
    assert (early["granted"], early["expires_at_ms"]) == (90, NOW_MS + 120_000)


def test_what_a_killed_gateway_held_returns_when_it_is_back(gateway: Call, key: str) -> None:
    scope = {"scope": f"key:{key}"}
    with fixed(NOW_MS):
        ask(gateway, {**scope, "ceiling": 1000, "needed": 1000})
    with fixed(NOW_MS + 3_600_000):
        assert ask(gateway, {**scope, "lease_id": "l2", "ceiling": 1000})[0]["granted"] == 0
        ask(gateway, {**scope, "seq": 2, "spent": 10, "close": True})
        (lease,) = ask(gateway, {**scope, "lease_id": "l2", "seq": 2, "ceiling": 1000, "needed": 990})
    assert lease["granted"] == 990


def test_gateways_at_the_same_time_never_get_more_than_there_is(gateway: Call, key: str) -> None:
    """Real threads on one counter: each grant is one conditional write. Who loses too often has no answer, and asks
    again as gateways do."""

    def spend(number: int) -> int:
        granted = 0
        for seq in range(1, 6):
            request = {
                "scope": f"key:{key}",
                "lease_id": f"l{number}",
                "seq": seq,
                "ceiling": granted + 100,
                "needed": 1,
            }
            granted = next(leases[0]["granted"] for _ in range(50) if (leases := ask(gateway, request)))
        return granted

    with ThreadPoolExecutor(8) as pool:
        granted = list(pool.map(spend, range(8)))
    from functions.app.store import leases

    counter = leases.load(f"key:{key}", "money_nanos", None)
    assert sum(granted) == counter.committed <= 1000
    assert counter.committed > 900


def test_an_order_to_wake_goes_out_once(call: Call, project: str, gateway: Call, outbox: Any) -> None:
    from functions.app.services import endpoints

    endpoints.publish(
        {"deployment_id": "dep_1", "project_id": project, "model_id": "m", "endpoint_name": "chat"},
        {"upstreams": ["http://10.0.0.1:8000"]},
    )
    wake = {"scope": "deployment:dep_1", "kind": "wake", "ceiling": 1, "needed": 1}
    with fixed(NOW_MS):
        granted = [ask(gateway, {**wake, "lease_id": name})[0]["granted"] for name in ("l1", "l1", "l2")]
    assert granted == [1, 1, 0]
    orders = [event for event in outbox() if event["type"] == "foundry.deployment.wake_wanted.v1"]
    assert [event["subject"] for event in orders] == ["dep_1"]


def test_a_canary_wakes_the_deployment_that_it_is_a_share_of(
    call: Call, project: str, gateway: Call, outbox: Any
) -> None:
    from functions.app.services import endpoints

    for name in ("chat", "next"):
        facts = {"deployment_id": f"dep_{name}", "project_id": project, "model_id": "m", "endpoint_name": name}
        endpoints.publish(facts, {"upstreams": ["http://10.0.0.1:8000"]})
    shares = [{"endpoint": "next", "weight": 0.1}, {"endpoint": "next", "weight": 1, "shadow": True}]
    policy = {"policy": {"routing": "weighted", "traffic": shares}}
    call("PATCH", f"/projects/{project}/endpoints/chat", policy).ok()
    wake = {"kind": "wake", "ceiling": 1, "needed": 1}
    granted = {
        id_: ask(gateway, {**wake, "scope": f"deployment:{id_}", "lease_id": "l1"})[0]["granted"]
        for id_ in ("dep_next/chat", "dep_next/chat-shadow")
    }
    assert granted == {"dep_next/chat": 1, "dep_next/chat-shadow": 0}
    [order] = [event for event in outbox() if event["type"] == "foundry.deployment.wake_wanted.v1"]
    assert order["data"] == {"deployment_id": "dep_next", "project_id": project}


def test_leases_of_one_gateway_are_not_anothers_to_close(call: Call, gateway: Call, key: str) -> None:
    token = call("POST", "/gateways", {"name": "other"}).ok(201)["token"]

    def other(method: str, path: str, body: Any) -> Any:
        return call(method, path, body, None, {"authorization": f"Bearer {token}"})

    ask(gateway, {"scope": f"key:{key}", "ceiling": 1000, "needed": 1000})
    ask(other, {"scope": f"key:{key}", "seq": 9, "spent": 0, "close": True})
    assert ask(other, {"scope": f"key:{key}", "lease_id": "l2", "ceiling": 10})[0]["granted"] == 0


@pytest.mark.parametrize(
    "request_",
    [{"scope": "key"}, {"scope": "key:"}, {"scope": "user:x"}, {"scope": "key:a b"}, {"kind": "euro"}, {"seq": -1},
     {"seq": None}, {"spent": -1}, {"held": 1.5}, {"ceiling": 10**19}, {"ceiling": "9"}, {"lease_id": "../x"},
     {"lease_id": ""}, {"window_ms": -1}, {"close": "maybe"}],
    ids=repr,
)  # fmt: skip
def test_a_malformed_lease_is_refused_as_a_whole(gateway: Call, request_: dict[str, Any]) -> None:
    sound = {"scope": "key:a", "kind": "money_nanos", "lease_id": "l1", "seq": 1}
    body = {"gateway_id": "pod-1", "requests": [sound, {**sound, **request_}]}
    gateway("POST", "/gateway/leases", body).problem(422, "invalid_request")


def test_too_many_leases_at_once(gateway: Call) -> None:
    sound = {"scope": "key:a", "kind": "money_nanos", "lease_id": "l1", "seq": 1}
    gateway("POST", "/gateway/leases", {"gateway_id": "pod-1", "requests": [sound] * 101}).problem(
        422, "invalid_request"
    )


def test_an_upload_goes_where_the_gateway_may_write_and_nowhere_else(call: Call, gateway: Call, bucket: str) -> None:
    content = gzip.compress(b"{}")
    body = {"gateway_id": "pod-7-0", "batch_id": "0001", "rows": 1, "bytes": len(content)}
    upload = gateway("POST", "/gateway/uploads", body).ok()
    gateway_id = call("GET", "/gateways").ok()["items"][0]["id"]
    url = urlsplit(upload["url"])
    assert url.path.endswith(f"/metering/all/{gateway_id}.pod-7-0/0001.jsonl.gz") and bucket in upload["url"]
    query = parse_qs(url.query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert {"content-length", "content-type", "host"} <= set(query["X-Amz-SignedHeaders"][0].split(";"))
    assert upload["headers"] == {"content-type": "application/gzip", "content-length": str(len(content))}
    again = gateway("POST", "/gateway/uploads", body).ok()
    assert urlsplit(again["url"]).path == url.path


def test_captured_bodies_go_to_a_place_of_their_project(gateway: Call, bucket: str) -> None:
    body = {"gateway_id": "pod-7-0", "batch_id": "1", "rows": 1, "bytes": 10, "captured": "prj_1"}
    path = urlsplit(gateway("POST", "/gateway/uploads", body).ok()["url"]).path
    assert "/captures/prj_1/" in path and path.endswith(".pod-7-0/1.jsonl.gz")
    gateway("POST", "/gateway/uploads", {**body, "captured": "../metering"}).problem(422, "invalid_request")


def test_gateways_hear_which_projects_bodies_to_keep(call: Call, gateway: Call, project: str) -> None:
    assert gateway("GET", "/gateway/config").ok()["projects"] == []
    call("PATCH", f"/projects/{project}", {"capture_bodies": True}).ok()
    [entry] = gateway("GET", "/gateway/config").ok()["projects"]
    assert (entry["id"], entry["capture_bodies"]) == (project, True)
    call("PATCH", f"/projects/{project}", {"capture_bodies": False}).ok()
    assert gateway("GET", "/gateway/config").ok()["projects"] == []


@pytest.mark.parametrize(
    "change",
    [{"batch_id": "../../x"}, {"batch_id": "a/b"}, {"batch_id": ""}, {"batch_id": "a" * 129}, {"gateway_id": ".."},
     {"gateway_id": "é"}, {"bytes": 0}, {"bytes": 17 * 2**20}, {"bytes": True}, {"rows": -1}, {"batch_id": None}],
    ids=repr,
)  # fmt: skip
def test_a_malformed_upload_is_refused(gateway: Call, bucket: str, change: dict[str, Any]) -> None:
    body = {"gateway_id": "pod", "batch_id": "1", "rows": 1, "bytes": 10, **change}
    gateway("POST", "/gateway/uploads", body).problem(422, "invalid_request")


def test_a_counter_that_too_many_ask_for_stops_nobody_else(
    call: Call, gateway: Call, project: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from functions.app.store import leases as store

    call("PATCH", f"/projects/{project}", {"limits": {"budget_nanos": 1000}}).ok()
    update = store.update

    def crowded(scope: str, *rest: Any) -> Any:
        if scope == f"project:{project}":
            raise TransientError("Too many gateways ask at once.")
        return update(scope, *rest)

    monkeypatch.setattr(store, "update", crowded)
    [lease] = ask(gateway, {"scope": f"project:{project}", "lease_id": "l0"}, {"scope": f"key:{key}", "ceiling": 100})
    assert (lease["scope"], lease["granted"]) == (f"key:{key}", 100)


def test_a_turn_ends_in_time_and_the_rest_has_no_answer(
    gateway: Call, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from functions.app.services import leases

    ticks = itertools.count(NOW_MS, leases.TURN_MS // 10)  # as long as an answer takes
    monkeypatch.setattr(leases, "now_ms", lambda: next(ticks))
    requests = [{"scope": f"key:{key}", "lease_id": f"l{number}", "ceiling": 1} for number in range(30)]
    answers = ask(gateway, *requests)
    assert [answer["lease_id"] for answer in answers] == [f"l{number}" for number in range(len(answers))]
    assert 1 <= len(answers) < 30
