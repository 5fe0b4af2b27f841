"""Signing in through the browser: authorization code with PKCE on a loopback callback (RFC 7636, RFC 8252)."""

import base64
import hashlib
import secrets
import time
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from foundry_cli.auth import SIGN_IN
from foundry_cli.errors import CliError
from foundry_cli.output import errors

CALLBACK_PORT = 4711  # registered with the user pool's client (stacks/identity.py)
CALLBACK = f"http://localhost:{CALLBACK_PORT}/callback"
_SCOPES = "openid email profile"
_WAIT_SECONDS = 300


def tokens(login_url: str, client_id: str) -> dict[str, Any]:
    """Cognito's token answer, in the form of ``InitiateAuth``'s AuthenticationResult."""
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
    page = authorize_url(login_url, client_id, verifier, state)
    with _callback(state) as server:
        if not webbrowser.open(page):
            errors.print(f"Open this page in a browser on this machine: {page}", soft_wrap=True)
        code = _wait_for_code(server)
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
    try:
        response = httpx.post(f"{login_url}/oauth2/token", data=form, timeout=30)
    except httpx.TransportError as error:
        raise CliError(f"No answer from the sign-in page {login_url} ({error}).", SIGN_IN) from error
    if response.status_code != 200:
        raise CliError("The sign-in page's answer was refused.", SIGN_IN)
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


class _Callback(HTTPServer):
    """Where the browser comes back to; ``code`` is there once it has."""

    code: str | None = None

    def __init__(self, state: str) -> None:
        super().__init__(("127.0.0.1", CALLBACK_PORT), _Answer)
        self.state = state


class _Answer(BaseHTTPRequestHandler):
    server: _Callback
    timeout = 5  # seconds: browsers open connections that they do not use

    def do_GET(self) -> None:
        code = code_of(self.path, self.server.state)
        self.send_response(200 if code else 400)
        self.end_headers()
        self.wfile.write(b"Signed in. You can close this page." if code else b"This is not our answer.")
        self.server.code = code or self.server.code

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _callback(state: str) -> _Callback:
    try:
        return _Callback(state)
    except OSError as error:
        message = f"Port {CALLBACK_PORT}, where the browser comes back to, is in use."
        raise CliError(message, f"lsof -i :{CALLBACK_PORT}") from error


def _wait_for_code(server: _Callback) -> str:
    """A browser asks for other things too, such as an icon: wait for the sign-in itself."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while server.code is None and (left := deadline - time.monotonic()) > 0:
        server.timeout = left
        server.handle_request()
    if server.code is None:
        raise CliError("The browser did not come back with a sign-in.", SIGN_IN)
    return server.code
