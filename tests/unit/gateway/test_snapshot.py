"""A snapshot is taken as a whole or not at all."""

import hashlib
import json
from typing import Any

import pytest
from gateway.core.authorise import authorise, find_endpoint, visible_models
from gateway.core.exchange import Exchange
from gateway.core.headers import client_ip
from gateway.core.policy import Policy
from gateway.core.problems import Rejected
from gateway.core.snapshot import BrokenSnapshot, Snapshot, load
from hypothesis import given
from hypothesis import strategies as st

from tests.stand_in import stand_in_cases

from ipaddress import ip_network  # isort: skip

PII = {"id": "g", "kind": "pii"}


def config(**changes: Any) -> dict[str, Any]:
    key = {"id": "k", "sha256": hashlib.sha256(b"sk").hexdigest(), "project_id": "p"}
    deployment = {"id": "d", "url": "http://10.0.0.1:8000/v1", "model": "m"}
    return {"version": 1, "keys": [key], "endpoints": [{"name": "e", "tiers": [[deployment]]}]} | changes


def taken(document: Any, before: Snapshot | None = None) -> Snapshot:
    return load(json.dumps(document).encode(), before)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "x"},
        {"keys": [{"id": "k", "sha256": "abc", "project_id": "p"}]},
        {"keys": [{"id": "k", "sha256": "00" * 31, "project_id": "p"}]},
        {"keys": [{"id": "k", "sha256": "00" * 32, "project_id": "p", "cidrs": ["10.0.0.0/99"]}]},
        {"endpoints": [{"name": "e", "tiers": [[{"id": "d", "url": "ftp://x", "model": "m"}]]}]},
        {"endpoints": [{"name": "e", "tiers": [[{"id": "d", "url": "http://x:99999", "model": "m"}]]}]},
        {"endpoints": [{"name": "e", "tiers": [[{"id": "d", "url": "http://x", "model": "m", "weight": -1}]]}]},
        {"endpoints": [{"name": "e", "tiers": []}, {"name": "e", "tiers": []}]},
        {"endpoints": [{"name": "e", "tiers": [], "policy": {"fallbacks": ["e"]}}]},
        {"endpoints": [{"name": "e", "tiers": [], "policy": {"fallbacks": ["nope"]}}]},
        {
            "endpoints": [
                {"name": "a", "tiers": [], "policy": {"fallbacks": ["b"]}},
                {"name": "b", "tiers": [], "policy": {"fallbacks": ["a"]}},
            ]
        },
        {"blocking": [{"id": "b", "kind": "cidr", "value": "nope"}]},
        {"blocking": [{"id": "b", "kind": "country", "value": "Atlantis"}]},
        {"blocking": [{"id": "b", "kind": "rate", "value": "-5"}]},
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BrokenSnapshot):
        taken(config(**changes))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_cleanly(data: bytes) -> None:
    with pytest.raises(BrokenSnapshot):
        load(data)


def test_unknown_fields_are_ignored_and_the_v1_suffix_is_dropped() -> None:
    snapshot = taken(config(new_field={"x": 1}))
    [deployment] = snapshot.deployments.values()
    assert (deployment.host, deployment.port, deployment.prefix, deployment.tls) == ("10.0.0.1", 8000, b"", False)


def test_what_was_seen_of_a_deployment_outlives_a_swap_unless_it_changed() -> None:
    before = taken(config())
    before.deployments["d"].failures = 2
    assert taken(config(version=2), before).deployments["d"].failures == 2
    moved = {"id": "d", "url": "http://10.0.0.2", "model": "m"}
    after = taken(config(endpoints=[{"name": "e", "tiers": [[moved]]}]), before)
    assert after.deployments["d"].failures == 0


def test_an_endpoint_that_contradicts_itself_is_closed_and_no_other() -> None:
    twice = [config()["endpoints"][0]["tiers"][0][0] | {"id": "t", "weight": weight} for weight in (0.1, 0.2)]
    endpoints = config()["endpoints"]
    snapshot = taken(config(endpoints=[{"name": "torn", "tiers": [twice]}, *endpoints]))
    assert "t is there twice" in snapshot.endpoints["torn"].problem
    assert snapshot.endpoints["e"].problem == ""


def test_a_closed_endpoint_is_passed_over_as_a_fallback() -> None:
    bad = [{"id": "g", "kind": "regex", "patterns": ["(?=a)"]}]
    endpoints = [
        {"name": "first", "tiers": [], "policy": {"fallbacks": ["closed"]}},
        {"name": "closed", "tiers": [], "policy": {"fallbacks": ["last"], "guardrails": bad}},
        {"name": "last", "tiers": []},
    ]
    found = taken(config(endpoints=endpoints)).endpoints
    assert [endpoint.name for endpoint in found["first"].chain] == ["first", "last"]
    assert [endpoint.name for endpoint in found["closed"].chain] == ["closed", "last"]


@pytest.mark.parametrize(
    ("own", "asked", "stands_in"),
    [
        ({"limits": {"budget_nanos": 1}}, {}, False),
        ({"limits": {"requests_per_minute": 1}}, {}, False),
        ({"policy": {"guardrails": [PII]}}, {}, False),
        ({"policy": {"guardrails": [PII]}}, {"guardrails": [PII | {"action": "observe"}]}, False),
        ({"policy": {"guardrails": [PII]}}, {"guardrails": [PII]}, True),
        ({}, {"guardrails": [PII]}, True),
    ],
)
def test_a_fallback_with_limits_or_guardrails_of_its_own_is_passed_over(
    own: dict[str, Any], asked: dict[str, Any], stands_in: bool
) -> None:
    endpoints = [
        {"name": "first", "tiers": [], "policy": {"fallbacks": ["second", "last"], **asked}},
        {"name": "second", "tiers": [], **own},
        {"name": "last", "tiers": []},
    ]
    chain = [endpoint.name for endpoint in taken(config(endpoints=endpoints)).endpoints["first"].chain]
    assert chain == ["first", *["second"] * stands_in, "last"]


def refused(code: str) -> Any:
    return pytest.raises(Rejected, match=f"^{code}$")


def test_keys_expire_and_are_bound_to_addresses_models_and_projects() -> None:
    key = config()["keys"][0] | {"expires_at_ms": 1000, "cidrs": ["10.0.0.0/8"], "models": ["e"]}
    endpoints = [
        {"name": "e", "tiers": []},
        {"name": "f", "tiers": []},
        {"name": "g", "tiers": [], "project_ids": ["q"]},
    ]
    snapshot = taken(config(keys=[key], endpoints=endpoints))
    found = authorise(snapshot, b"sk", 999, "10.1.2.3")
    assert authorise(snapshot, b"sk", 999, "::ffff:10.1.2.3") is found
    with refused("invalid_api_key"):
        authorise(snapshot, b"sk2", 999, "10.1.2.3")
    with refused("key_expired"):
        authorise(snapshot, b"sk", 1000, "10.1.2.3")
    for address in ("11.0.0.1", "", "nonsense"):
        with refused("address_not_allowed"):
            authorise(snapshot, b"sk", 999, address)
    with refused("model_not_allowed"):
        find_endpoint(snapshot, found, "f")
    with refused("model_not_found"):
        find_endpoint(snapshot, found, "g")
    assert visible_models(snapshot, found) == ["e"]


@pytest.mark.parametrize(
    ("peer", "header", "expected"),
    [
        ("9.9.9.9", b"1.1.1.1", "9.9.9.9"),
        ("10.0.0.1", b"1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", b"6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
        ("10.0.0.1", b"", "10.0.0.1"),
    ],
)
def test_only_trusted_proxies_may_name_the_client(peer: str, header: bytes, expected: str) -> None:
    assert client_ip(peer, header, (ip_network("10.0.0.0/8"),)) == expected


def test_a_request_that_began_before_a_config_gets_the_rights_of_the_key_that_is() -> None:
    policy = Policy("gw", "boot")
    policy.swap(taken(config()))
    held = [exchange_of(policy) for _ in range(2)]
    key = config()["keys"][0] | {"models": ["other"], "limits": {"budget_nanos": 10}}
    policy.swap(taken(config(keys=[key])))
    for exchange in (held[0], exchange_of(policy)):
        with pytest.raises(Rejected, match="model"):
            policy.admit(exchange, b'{"model":"e"}', b"application/json", 0)
    policy.swap(taken(config(keys=[])))
    with pytest.raises(Rejected) as refused:
        policy.admit(held[1], b'{"model":"e"}', b"application/json", 0)
    assert refused.value.code == "invalid_api_key"


def exchange_of(policy: Policy) -> Exchange:
    exchange = Exchange(policy.new_event_id(), "/v1/chat/completions", 0.0, 0)
    policy.authorise(exchange, b"sk", "127.0.0.1")
    return exchange


@pytest.mark.parametrize("case", stand_in_cases(), ids=lambda case: case["why"])
def test_who_may_stand_in_is_what_the_control_plane_takes(case: dict[str, Any]) -> None:
    """As a fallback, a canary and a shadow."""
    own = {"id": "d", "url": "http://10.0.0.1:8000", "model": "m"}
    shared = [own | {"id": f"d/asked{mark}", "endpoint": "other", "shadow": bool(mark)} for mark in ("", "-shadow")]
    policy = {**case["asked"].get("policy", {}), "fallbacks": ["other"]}
    asked = {**case["asked"], "name": "asked", "tiers": [[own | {"id": "a"}, *shared]], "policy": policy}
    other = {**case["other"], "name": "other", "tiers": [[own]]}
    endpoint = taken(config(endpoints=[asked, other])).endpoints["asked"]
    told = ["asked", "other"] if case["stands_in"] else ["asked"]
    assert [e.name for e in endpoint.chain] == told
    assert [d.id for d in endpoint.tiers[0]] == ["a", "d/asked"][: len(told)]
    assert [d.id for d in endpoint.shadows] == ["d/asked-shadow"][: len(told) - 1]


def test_a_share_of_an_endpoint_that_is_unknown_gets_nothing() -> None:
    """Nobody can say what it asks."""
    own = {"id": "d", "url": "http://10.0.0.1:8000", "model": "m"}
    asked = {"name": "asked", "tiers": [[own, own | {"id": "d2/asked", "endpoint": "gone"}]]}
    assert [d.id for d in taken(config(endpoints=[asked])).endpoints["asked"].tiers[0]] == ["d"]
