"""Signing in through the browser: authorization code with PKCE on a loopback callback (RFC 7636, RFC 8252)."""

import base64
import hashlib
import secrets
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from foundry_cli.errors import CliError

CALLBACK_PORT = 4711  # registered with the user pool's client (stacks/identity.py)
CALLBACK = f"http://localhost:{CALLBACK_PORT}/callback"
_SCOPES = "openid email profile"
_WAIT_SECONDS = 300


def tokens(login_url: str, client_id: str) -> dict[str, Any]:
    """Cognito's token answer, in the form of ``InitiateAuth``'s AuthenticationResult."""
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
    page = authorize_url(login_url, client_id, verifier, state)
    if not webbrowser.open(page):
        raise CliError(f"Open this page in a browser: {page}")
    code = _wait_for_code(state)
    return exchange(login_url, client_id, code, verifier)


def authorize_url(login_url: str, client_id: str, verifier: str, state: str) -> str:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": CALLBACK,
        "scope": _SCOPES,
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return f"{login_url}/oauth2/authorize?{urlencode(query)}"


def exchange(login_url: str, client_id: str, code: str, verifier: str) -> dict[str, Any]:
    form = {
        "grant_type": "authorization_code",
        "client_id": client_id,
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": verifier,
    }
    response = httpx.post(f"{login_url}/oauth2/token", data=form, timeout=30)
    if response.status_code != 200:
        raise CliError("The sign-in page's answer was refused.", "foundry login")
    answer = response.json()
    return {
        "AccessToken": answer["access_token"],
        "RefreshToken": answer["refresh_token"],
        "ExpiresIn": answer["expires_in"],
    }


def code_of(path: str, state: str) -> str | None:
    """The authorization code in a callback's path, or None for any other request (wrong state included)."""
    parts = urlsplit(path)
    query = parse_qs(parts.query)
    if parts.path != "/callback" or query.get("state") != [state]:
        return None
    return query["code"][0] if "code" in query else None


def _wait_for_code(state: str) -> str:
    found: list[str] = []

    class Callback(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code = code_of(self.path, state)
            self.send_response(200 if code else 400)
            self.end_headers()
            self.wfile.write(b"Signed in. You can close this page." if code else b"This is not our answer.")
            if code:
                found.append(code)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", CALLBACK_PORT), Callback) as server:
        server.timeout = _WAIT_SECONDS
        server.handle_request()
    if not found:
        raise CliError("The browser did not come back with a sign-in.", "foundry login")
    return found[0]
