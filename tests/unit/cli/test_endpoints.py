"""`foundry endpoints`: what is sent for an external provider."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from foundry_cli.client import Api
from foundry_cli.endpoints import endpoints_app, nanos
from foundry_cli.errors import CliError
from foundry_cli.profile import Profile
from typer.testing import CliRunner


@pytest.mark.parametrize(("dollars", "per_token"), [("0", 0), ("3", 3000), ("0.15", 150), ("0.001", 1)])
def test_dollars_for_a_million_tokens_are_nanos_for_one(dollars: str, per_token: int) -> None:
    assert nanos(dollars) == per_token


@pytest.mark.parametrize("dollars", ["-1", "0.0001", "a lot", "NaN", "Infinity"])
def test_what_is_no_price_is_said(dollars: str) -> None:
    with pytest.raises(CliError):
        nanos(dollars)


def test_an_endpoint_is_added_and_its_key_explained(signed_in: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def platform(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"items": [{"id": "prj_1", "name": "alpha"}], "next_cursor": None})
        sent.append((request.url.path, json.loads(request.content)))
        return httpx.Response(201, json={"name": "claude", "provider": "anthropic"})

    monkeypatch.setattr("foundry_cli.endpoints.Api", lambda: Api(signed_in, httpx.MockTransport(platform)))
    arguments = (
        "add claude --provider anthropic --url https://api.anthropic.com --model m --credential k --input-price 3"
    )
    result = CliRunner().invoke(endpoints_app, arguments.split())
    assert result.exit_code == 0 and "credentials set k --project prj_1" in result.output
    [(path, body)] = sent
    assert path == "/projects/prj_1/endpoints"
    assert body["price"] == {"input_nanos_per_token": 3000, "output_nanos_per_token": 0}
    assert (body["provider"], body["credential"], body["model"]) == ("anthropic", "k", "m")


@pytest.fixture
def asked(signed_in: Profile, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """What the platform is asked about an endpoint; it says what it was told."""
    asked: list[tuple[str, str, Any]] = []

    def platform(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/projects":
            return httpx.Response(200, json={"items": [{"id": "prj_1", "name": "alpha"}], "next_cursor": None})
        body = json.loads(request.content) if request.content else {"policy": {"cache_ttl_s": 0}, "adapters": {}}
        asked.append((request.method, request.url.path, body))
        return httpx.Response(200, json=body)

    monkeypatch.setattr("foundry_cli.endpoints.Api", lambda: Api(signed_in, httpx.MockTransport(platform)))
    return asked


def test_a_policy_is_shown(asked: list[Any]) -> None:
    result = CliRunner().invoke(endpoints_app, ["policy", "chat"])
    assert result.exit_code == 0 and json.loads(result.output) == {"cache_ttl_s": 0}
    assert [one[:2] for one in asked] == [("GET", "/projects/prj_1/endpoints/chat")]


def test_only_what_is_given_of_a_policy_changes(asked: list[Any], tmp_path: Path) -> None:
    rules = [{"id": "mail", "kind": "pii", "patterns": ["email"]}]
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    arguments = ["policy", "chat", "--cache", "0", "--guardrails", str(tmp_path / "rules.json"), "--fallbacks", "b,c"]
    arguments += ["--hold", "90", "--hold-queue", "9", "--sleep-after", "900"]
    result = CliRunner().invoke(endpoints_app, arguments)
    assert result.exit_code == 0, result.output
    policy = {
        "cache_ttl_s": 0,
        "guardrails": rules,
        "fallbacks": ["b", "c"],
        "hold_s": 90,
        "hold_queue": 9,
        "sleep_after_s": 900,
    }
    assert asked == [("PATCH", "/projects/prj_1/endpoints/chat", {"policy": policy})]
    assert json.loads(result.output) == policy


def test_adapters_are_shown_said_and_taken_away(asked: list[Any]) -> None:
    tuned = {"support": "org/support-v2", "legal": "x=y"}
    for arguments in ([], ["--adapter", "support=org/support-v2", "--adapter", "legal=x=y"], ["--none"]):
        assert CliRunner().invoke(endpoints_app, ["adapters", "chat", *arguments]).exit_code == 0
    assert [body for _, _, body in asked[1:]] == [{"adapters": tuned}, {"adapters": {}}]
    assert asked[0][0] == "GET"


@pytest.mark.parametrize("adapters", [["support"], ["=x"], ["a="], ["a=x", "a=y"]])
def test_an_adapter_without_its_engine_s_name_is_said(asked: list[Any], adapters: list[str]) -> None:
    arguments = [part for adapter in adapters for part in ("--adapter", adapter)]
    result = CliRunner().invoke(endpoints_app, ["adapters", "chat", *arguments])
    assert isinstance(result.exception, CliError) and "NAME=ENGINE_NAME" in str(result.exception)
    assert asked == []


@pytest.mark.parametrize(("text", "said"), [("{", "not JSON"), ("{}", "must hold a list")])
def test_a_file_without_guardrails_is_said(asked: list[Any], tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "rules.json").write_text(text)
    result = CliRunner().invoke(endpoints_app, ["policy", "chat", "--guardrails", str(tmp_path / "rules.json")])
    assert isinstance(result.exception, CliError) and said in str(result.exception)
    assert asked == []
