"""Blocking rules: made by operators, obeyed by gateways, never such that a gateway would refuse its config."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from gateway.core import snapshot
from gateway.core.blocking import Blocking
from gateway.core.problems import Rejected

Call = Callable[..., Any]
RULES = "/blocking-rules"


def loaded(gateway: Call) -> snapshot.Snapshot:
    """The config as a gateway reads it."""
    return snapshot.load(json.dumps(gateway("GET", "/gateway/config").ok()).encode())


@pytest.mark.parametrize(
    ("kind", "value", "kept"),
    [
        ("cidr", "203.0.113.7/24", "203.0.113.0/24"), ("cidr", "2001:DB8::/32", "2001:db8::/32"),
        ("cidr", "198.51.100.9", "198.51.100.9/32"), ("user_agent", " BadBot/1 ", "badbot/1"),
        ("country", "nl", "NL"), ("rate", "0600", "600"),
    ],
)  # fmt: skip
def test_a_rule_reaches_gateways_as_they_read_it(call: Call, gateway: Call, kind: str, value: str, kept: str) -> None:
    made = call("POST", RULES, {"kind": kind, "value": value, "note": "abuse"}, "operator").ok(201)
    assert (made["value"], made["note"], made["created_by"]) == (kept, "abuse", "u-operator")
    assert call("GET", RULES, None, "operator").ok()["items"] == [made]
    assert [(rule.id, rule.kind, rule.value) for rule in loaded(gateway).rules] == [(made["id"], kind, kept)]


def test_gateways_refuse_the_callers_until_the_rule_is_removed(call: Call, gateway: Call) -> None:
    rule = call("POST", RULES, {"kind": "cidr", "value": "203.0.113.0/24"}).ok(201)
    before = loaded(gateway)
    with pytest.raises(Rejected) as refused:
        Blocking().refuse(before, "203.0.113.9", "curl", 0)
    assert refused.value.code == "blocked"
    Blocking().refuse(before, "198.51.100.9", "curl", 0)
    call("DELETE", f"{RULES}/{rule['id']}").ok(204)
    after = loaded(gateway)
    assert after.version > before.version
    Blocking().refuse(after, "203.0.113.9", "curl", 0)
    call("DELETE", f"{RULES}/{rule['id']}").problem(404, "rule_not_found")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("cidr", "0.0.0.0/0"), ("cidr", "::/0"), ("cidr", "203.0.113.0/33"), ("cidr", "example.com"), ("cidr", "1"),
        ("user_agent", "ab"), ("user_agent", "bö t"), ("user_agent", "a\nbot"), ("country", "Netherlands"),
        ("country", "ÅL"), ("rate", "0"), ("rate", "-1"), ("rate", "1.5"), ("rate", "1000000000"), ("rate", "٣"),
        ("asn", "64496"), ("cidr", ""), ("cidr", "x" * 300), ("rate", 600),
    ],
)  # fmt: skip
def test_what_gateways_would_not_take_is_refused(call: Call, kind: str, value: Any) -> None:
    call("POST", RULES, {"kind": kind, "value": value}).problem(422, "invalid_request")
    assert call("GET", RULES).ok()["items"] == []


def test_a_rule_is_there_once_and_not_too_many(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call("POST", RULES, {"kind": "country", "value": "NL"}).ok(201)
    call("POST", RULES, {"kind": "country", "value": "nl"}).problem(409, "rule_exists")
    monkeypatch.setattr("functions.app.store.blocking.MOST", 1)
    call("POST", RULES, {"kind": "country", "value": "BE"}).problem(422, "too_many_rules")
