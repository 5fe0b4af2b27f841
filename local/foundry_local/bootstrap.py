"""What an administrator would do first on a new platform: one user per role, and a gateway with its token.

Everything is checked at every start, since ``kill -9`` may have taken back what was done in the last two seconds.
"""

import json
import logging
import secrets
import string
from dataclasses import dataclass
from typing import Any

import boto3
import httpx

from .errors import PlatformError
from .state import StateDir, write_private

log = logging.getLogger(__name__)

ROLES = ("admin", "developer", "operator", "auditor", "client")
GATEWAY = "local"
_TIMEOUT_S = 30.0


class BootstrapError(PlatformError):
    """The platform refused one of the first steps."""


@dataclass(frozen=True)
class UserPool:
    pool_id: str
    client_id: str

    @property
    def issuer(self) -> str:
        return f"https://cognito-idp.{self.pool_id.partition('_')[0]}.amazonaws.com/{self.pool_id}"


def username(role: str) -> str:
    return f"{role}@foundry.local"


class Credentials:
    """``credentials.json``: passwords of the demo users and the gateway's token, readable by its owner alone."""

    def __init__(self, state: StateDir) -> None:
        self._path = state.credentials
        saved: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}
        self.passwords: dict[str, str] = saved.get("passwords", {})
        self.gateway_token: str | None = saved.get("gateway_token")

    def save(self) -> None:
        write_private(
            self._path, json.dumps({"passwords": self.passwords, "gateway_token": self.gateway_token}, indent=2)
        )


def create_users(pool: UserPool, credentials: Credentials) -> None:
    """A confirmed user per role; one that is new, or whose password we lost, gets a new password."""
    cognito: Any = boto3.client("cognito-idp")
    present = {user["Username"]: user for user in cognito.list_users(UserPoolId=pool.pool_id)["Users"]}
    emails = {_email(user): name for name, user in present.items()}
    for role in ROLES:
        email = username(role)
        if email in emails and email in credentials.passwords:
            continue
        _create_user(cognito, pool.pool_id, email, role, exists=email in emails)
        credentials.passwords[email] = new_password()
        credentials.save()
        cognito.admin_set_user_password(
            UserPoolId=pool.pool_id, Username=email, Password=credentials.passwords[email], Permanent=True
        )


def _create_user(cognito: Any, pool_id: str, email: str, role: str, *, exists: bool) -> None:
    if not exists:
        attributes = [{"Name": "email", "Value": email}, {"Name": "email_verified", "Value": "true"}]
        cognito.admin_create_user(
            UserPoolId=pool_id, Username=email, UserAttributes=attributes, MessageAction="SUPPRESS"
        )
    cognito.admin_add_user_to_group(UserPoolId=pool_id, Username=email, GroupName=role)


def _email(user: dict[str, Any]) -> str:
    attributes = {attribute["Name"]: attribute["Value"] for attribute in user.get("Attributes", [])}
    return str(attributes.get("email", user["Username"]))


def new_password() -> str:
    """Random, and of every kind of character that the pool's policy asks for."""
    required = [
        secrets.choice(kind) for kind in (string.ascii_lowercase, string.ascii_uppercase, string.digits, "-_.!")
    ]
    rest = [secrets.choice(string.ascii_letters + string.digits) for _ in range(20)]
    return "".join([*rest, *required])


def sign_in(pool: UserPool, name: str, password: str) -> str:
    """An access token."""
    cognito: Any = boto3.client("cognito-idp")
    answer: dict[str, Any] = cognito.initiate_auth(
        ClientId=pool.client_id,
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": name, "PASSWORD": password},
    )
    return str(answer["AuthenticationResult"]["AccessToken"])


def register_gateway(api_url: str, pool: UserPool, credentials: Credentials) -> str:
    """The token of our gateway, registered through the API when the platform does not know it."""
    token = credentials.gateway_token
    if token and _is_known(api_url, token):
        return token
    admin = username("admin")
    headers = {"authorization": f"Bearer {sign_in(pool, admin, credentials.passwords[admin])}"}
    with httpx.Client(base_url=api_url, headers=headers, timeout=_TIMEOUT_S) as api:
        _forget_gateway(api)
        token = str(_ok(api.post("/gateways", json={"name": GATEWAY}))["token"])
    credentials.gateway_token = token
    credentials.save()
    return token


def _is_known(api_url: str, token: str) -> bool:
    answer = httpx.get(f"{api_url}/gateway/config", headers={"authorization": f"Bearer {token}"}, timeout=_TIMEOUT_S)
    return answer.is_success


def _forget_gateway(api: httpx.Client) -> None:
    """Remove a gateway of our name whose token we do not have."""
    for gateway in _ok(api.get("/gateways"))["items"]:
        if gateway["name"] == GATEWAY:
            api.delete(f"/gateways/{gateway['id']}").raise_for_status()


def _ok(answer: httpx.Response) -> Any:
    if not answer.is_success:
        raise BootstrapError(
            f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:300]}"
        )
    return answer.json()
