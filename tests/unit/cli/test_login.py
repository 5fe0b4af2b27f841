"""Signing in: PKCE as RFC 7636 has it, a callback that only believes its own state, outputs of `cdk deploy`."""

import json
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from foundry_cli import auth, browser
from foundry_cli.errors import CliError
from foundry_cli.login import issuer_of, outputs_of
from foundry_cli.main import app
from foundry_local.serve import free_port
from typer.testing import CliRunner

OUTPUTS = {"foundry-dev-api": {"ApiUrl": "https://a"}, "foundry-dev-identity": {
    "UserPoolId": "eu-west-1_x", "CliClientId": "c", "LoginUrl": "https://l"}}  # fmt: skip


def test_the_challenge_is_the_hash_of_the_verifier() -> None:
    # The example of RFC 7636, appendix B.
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    query = parse_qs(urlsplit(browser.authorize_url("https://l", "c", verifier, "s")).query)
    assert query["code_challenge"] == ["E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"]
    assert query["code_challenge_method"] == ["S256"] and query["state"] == ["s"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/callback?code=abc&state=s", "abc"),
        ("/callback?code=abc&state=other", None),
        ("/callback?code=abc", None),
        ("/callback?state=s", None),
        ("/other?code=abc&state=s", None),
        ("/callback?code=abc&state=s&state=t", None),
    ],
)
def test_only_our_own_callback_counts(path: str, code: str | None) -> None:
    assert browser.code_of(path, "s") == code


def test_outputs_of_all_stacks(tmp_path: Path) -> None:
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps(OUTPUTS))
    assert outputs_of(file)["CliClientId"] == "c"
    assert auth.cognito_url(issuer_of("eu-west-1_x")) == "https://cognito-idp.eu-west-1.amazonaws.com/"


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": {"ApiUrl": "x"}}'])
def test_a_wrong_outputs_file_names_the_command(tmp_path: Path, content: str) -> None:
    file = tmp_path / "outputs.json"
    file.write_text(content)
    with pytest.raises(CliError) as caught:
        outputs_of(file)
    assert "--outputs-file" in str(caught.value.next_command)


def test_without_a_browser_the_page_is_shown_and_awaited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    monkeypatch.setattr(browser, "CALLBACK_PORT", port)
    monkeypatch.setattr(browser, "exchange", lambda url, client, code, verifier: {"AccessToken": code})

    def somebody_opens(page: str) -> bool:
        [state] = parse_qs(urlsplit(page).query)["state"]
        paths = ("/favicon.ico", f"/callback?code=abc&state={state}")
        visit = threading.Thread(target=lambda: [httpx.get(f"http://127.0.0.1:{port}{path}") for path in paths])
        visit.start()
        return False

    monkeypatch.setattr(browser.webbrowser, "open", somebody_opens)
    assert browser.tokens("https://l", "c") == {"AccessToken": "abc"}
    assert "https://l/oauth2/authorize?" in capsys.readouterr().err


def test_a_taken_callback_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with browser.HTTPServer(("127.0.0.1", 0), browser.BaseHTTPRequestHandler) as taken:
        monkeypatch.setattr(browser, "CALLBACK_PORT", taken.server_port)
        with pytest.raises(CliError, match=f"Port {taken.server_port}"):
            browser.tokens("https://l", "c")


def test_a_challenge_names_a_command_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    challenge = httpx.Response(200, json={"ChallengeName": "NEW_PASSWORD_REQUIRED"})
    monkeypatch.setattr(auth.httpx, "post", httpx.Client(transport=httpx.MockTransport(lambda _: challenge)).post)
    with pytest.raises(CliError, match="NEW_PASSWORD_REQUIRED") as caught:
        auth.sign_in("http://a", "http://i/p", "c", "ada", "secret")
    options = [word for word in str(caught.value.next_command).split() if word.startswith("--")]
    shown = CliRunner().invoke(app, ["login", "--help"]).output
    assert options and all(option in shown for option in options)


@pytest.mark.parametrize("answer", [b"<html>", b"[1]"])
def test_a_page_that_is_no_sign_in_service_is_one_sentence(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    page = httpx.MockTransport(lambda _: httpx.Response(200, content=answer))
    monkeypatch.setattr(auth.httpx, "post", httpx.Client(transport=page).post)
    with pytest.raises(CliError, match="not a sign-in service"):
        auth.sign_in("http://a", "http://i/p", "c", "ada", "secret")
