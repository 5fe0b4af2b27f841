"""Signing in with Cognito: a password for scripts and the local platform, tokens refreshed when they run out."""

import time
from typing import Any

import httpx

from foundry_cli import profile
from foundry_cli.errors import CliError
from foundry_cli.profile import Profile

_EARLY_MS = 60_000
SIGN_IN = "foundry login --outputs FILE"  # to a deployed platform, in the browser


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def cognito_url(issuer: str) -> str:
    """``https://cognito-idp.<region>.amazonaws.com/`` of an issuer ``https://…/<pool id>``."""
    return issuer.rsplit("/", 1)[0] + "/"


def _call(url: str, action: str, body: dict[str, Any]) -> dict[str, Any]:
    # Public Cognito operations need no AWS credentials, so no SDK (docs: "Unauthenticated API operations").
    headers = {
        "x-amz-target": f"AWSCognitoIdentityProviderService.{action}",
        "content-type": "application/x-amz-json-1.1",
    }
    try:
        response = httpx.post(url, json=body, headers=headers, timeout=30)
    except httpx.TransportError as error:
        raise CliError(f"No answer from the sign-in service {url} ({error}).", "foundry status") from error
    try:
        answer: dict[str, Any] = dict(response.json()) if response.content else {}
    except (ValueError, TypeError) as error:
        raise CliError(f"{url} is not a sign-in service (it answered {response.status_code}).", SIGN_IN) from error
    if response.status_code >= 400:
        raise CliError(f"Sign-in failed: {answer.get('message', response.status_code)}", "foundry login")
    return answer


def sign_in(api_url: str, issuer: str, client_id: str, username: str, password: str, url: str | None = None) -> Profile:
    """A profile with fresh tokens; ``CliError`` when the password is wrong or must be changed first."""
    url = url or cognito_url(issuer)
    answer = _call(
        url,
        "InitiateAuth",
        {
            "AuthFlow": "USER_PASSWORD_AUTH",
            "ClientId": client_id,
            "AuthParameters": {"USERNAME": username, "PASSWORD": password},
        },
    )
    if "AuthenticationResult" not in answer:
        raise CliError(f"Sign-in needs another step first: {answer.get('ChallengeName')}.", SIGN_IN)
    return with_tokens(
        {"api_url": api_url, "issuer": issuer, "client_id": client_id, "username": username, "cognito_url": url},
        answer["AuthenticationResult"],
    )


def with_tokens(fields: dict[str, Any], result: dict[str, Any]) -> Profile:
    return Profile(
        **fields,
        access_token=result["AccessToken"],
        refresh_token=result["RefreshToken"],
        expires_at_ms=_now_ms() + int(result["ExpiresIn"]) * 1000,
    )


def fresh(user: Profile) -> Profile:
    """The profile with an access token that is good for another minute at least."""
    if _now_ms() < user.expires_at_ms - _EARLY_MS:
        return user
    body = {
        "AuthFlow": "REFRESH_TOKEN_AUTH",
        "ClientId": user.client_id,
        "AuthParameters": {"REFRESH_TOKEN": user.refresh_token},
    }
    result = _call(user.cognito_url, "InitiateAuth", body)["AuthenticationResult"]
    renewed = user.model_copy(
        update={
            "access_token": result["AccessToken"],
            "expires_at_ms": _now_ms() + int(result["ExpiresIn"]) * 1000,
        }
    )
    profile.save(renewed)
    return renewed
