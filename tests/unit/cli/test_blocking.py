"""`foundry blocking`: rules go to the platform as they are typed, and come back as it keeps them."""

import json
from typing import Any

import httpx
import pytest
from foundry_cli.blocking import blocking_app
from foundry_cli.client import Api
from foundry_cli.profile import Profile
from typer.testing import CliRunner

RULE = {"id": "blk_1", "kind": "cidr", "value": "203.0.113.0/24", "note": "abuse", "created_by": "u-1",
        "created_at_ms": 1_800_000_000_000}  # fmt: skip


@pytest.fixture
def asked(signed_in: Profile, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    asked: list[tuple[str, str, Any]] = []

    def platform(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.path, json.loads(request.content) if request.content else None))
        if request.method == "GET":
            return httpx.Response(200, json={"items": [RULE], "next_cursor": None})
        return httpx.Response(204) if request.method == "DELETE" else httpx.Response(201, json=RULE)

    monkeypatch.setattr("foundry_cli.blocking.Api", lambda: Api(signed_in, httpx.MockTransport(platform)))
    return asked


def test_rules_are_added_listed_and_removed(asked: list[tuple[str, str, Any]]) -> None:
    added = CliRunner().invoke(blocking_app, ["add", "cidr", "203.0.113.7/24", "--note", "abuse"])
    assert "203.0.113.0/24" in added.output and "blk_1" in added.output
    assert asked[-1] == ("POST", "/blocking-rules", {"kind": "cidr", "value": "203.0.113.7/24", "note": "abuse"})
    assert "blk_1" in CliRunner().invoke(blocking_app, ["list"]).output
    assert CliRunner().invoke(blocking_app, ["remove", "blk_1"], input="n\n").exit_code
    assert CliRunner().invoke(blocking_app, ["remove", "blk_1", "--yes"]).exit_code == 0
    assert asked[-1][:2] == ("DELETE", "/blocking-rules/blk_1") and len(asked) == 3


def test_an_unknown_kind_is_told_what_there_is(asked: list[tuple[str, str, Any]]) -> None:
    refused = CliRunner().invoke(blocking_app, ["add", "asn", "64496"])
    assert refused.exit_code == 2 and "user_agent" in refused.output and not asked
