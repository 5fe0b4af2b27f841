"""Who is calling: built from the JWT claims that API Gateway verified, and from nothing the client can set."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from foundry_core.errors import Unauthenticated


class Role(StrEnum):
    ADMIN = "admin"
    DEVELOPER = "developer"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Principal:
    user_id: str
    username: str
    roles: frozenset[Role]


def from_event(event: Mapping[str, Any]) -> Principal:
    """Principal of an HTTP API (payload 2.0) event; ``Unauthenticated`` when no authorizer verified a token."""
    authorizer = event.get("requestContext", {}).get("authorizer") or {}
    claims = (authorizer.get("jwt") or {}).get("claims") or {}
    if not claims.get("sub"):
        raise Unauthenticated("This request carries no valid access token.", next_action="foundry login")
    return Principal(
        user_id=str(claims["sub"]),
        username=str(claims.get("username") or claims["sub"]),
        roles=frozenset(_roles(claims.get("cognito:groups", ""))),
    )


def _roles(groups: object) -> list[Role]:
    # API Gateway hands a list claim over as the string "[admin developer]".
    names = groups if isinstance(groups, list) else str(groups).strip("[]").replace(",", " ").split()
    return [Role(name) for name in names if name in Role._value2member_map_]
