"""The client turns problems into sentences, follows pages and runs, and never shows a traceback."""

import json
import stat
from collections.abc import Callable

import httpx
import pytest
from foundry_cli import profile
from foundry_cli.client import Api, ApiError
from foundry_cli.errors import CliError
from foundry_cli.profile import Profile

Answer = Callable[[httpx.Request], httpx.Response]


def api(user: Profile, answer: Answer) -> Api:
    return Api(user, httpx.MockTransport(answer))


def test_a_problem_becomes_its_sentence_and_next_command(signed_in: Profile) -> None:
    problem = {"status": 409, "code": "name_taken", "detail": "That name is taken.", "next_action": "Choose another."}
    with pytest.raises(ApiError) as caught:
        api(signed_in, lambda _: httpx.Response(409, json=problem)).post("/models", {})
    assert (caught.value.message, caught.value.next_command) == ("That name is taken.", "Choose another.")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"message":"Unauthorized"}'])
def test_any_refusal_has_a_sentence(signed_in: Profile, body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        api(signed_in, lambda _: httpx.Response(401, content=body)).get("/me")
    assert caught.value.message and caught.value.next_command == "foundry login"


def test_an_unreachable_platform_is_one_sentence(signed_in: Profile) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(CliError) as caught:
        api(signed_in, refuse).get("/me")
    assert caught.value.next_command == "foundry status"


def test_pages_become_one_list(signed_in: Profile) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        second = request.url.params.get("cursor") == "c"
        return httpx.Response(200, json={"items": [{"id": 2 if second else 1}], "next_cursor": None if second else "c"})

    assert api(signed_in, answer).items("/models") == [{"id": 1}, {"id": 2}]


def test_follow_sees_each_version_once(signed_in: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundry_cli.client.time.sleep", lambda _: None)
    answers = iter(
        [
            httpx.Response(200, json={"status": "running"}, headers={"etag": '"1"'}),
            httpx.Response(304),
            httpx.Response(200, json={"status": "succeeded"}, headers={"etag": '"2"'}),
        ]
    )
    seen: list[str] = []
    ended = api(signed_in, lambda _: next(answers)).follow("run_1", lambda run: seen.append(run["status"]))
    assert seen == ["running", "succeeded"] and ended["status"] == "succeeded"


def test_the_token_goes_with_every_request(signed_in: Profile) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"token": request.headers["authorization"]})

    assert api(signed_in, answer).get("/me") == {"token": "Bearer token"}


def test_the_profile_is_for_its_owner_alone(signed_in: Profile) -> None:
    assert stat.S_IMODE(profile.path().stat().st_mode) == 0o600
    assert profile.load() == signed_in


@pytest.mark.parametrize("content", ["", "{}", "not json", json.dumps({"api_url": 1})])
def test_a_broken_profile_asks_for_a_login(signed_in: Profile, content: str) -> None:
    profile.path().write_text(content)
    with pytest.raises(CliError) as caught:
        profile.load()
    assert caught.value.next_command == "foundry login"
