"""People live in the Cognito user pool: this adapter is the only file that talks to it. Groups are roles."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError
from foundry_core.aws import client
from foundry_core.errors import Conflict, Invalid, NotFound, Unavailable
from foundry_core.principal import Role
from foundry_core.settings import settings

from functions.app.schemas import User

_MAX_PAGE = 60  # Cognito's own limit


def create(email: str, roles: set[Role]) -> User:
    """Invite a person; Cognito sends a temporary password. ``Conflict`` with code ``name_taken``."""
    attributes = [{"Name": "email", "Value": email}, {"Name": "email_verified", "Value": "true"}]
    with _told(email):
        raw = _cognito().admin_create_user(
            UserPoolId=_pool(), Username=email, UserAttributes=attributes, DesiredDeliveryMediums=["EMAIL"]
        )["User"]
        try:
            _add(raw["Username"], roles)
        except ClientError:
            _cognito().admin_delete_user(UserPoolId=_pool(), Username=raw["Username"])
            raise
    return _user(raw, sorted(roles))


def get(user: str) -> User:
    """By id or e-mail address; ``NotFound``."""
    return _user(*_find(user))


def address_of(user_id: str, otherwise: str) -> str:
    """The e-mail address, which access tokens do not carry; ``otherwise`` for somebody who is not in the directory."""
    try:
        return get(user_id).email
    except (NotFound, Unavailable):
        return otherwise


def page_of(limit: int, cursor: str | None) -> tuple[list[User], str | None]:
    wanted: dict[str, Any] = {"UserPoolId": _pool(), "Limit": min(limit, _MAX_PAGE)}
    if cursor:
        wanted["PaginationToken"] = cursor
    try:
        answer = _cognito().list_users(**wanted)
    except (ClientError, ParamValidationError) as error:
        if cursor and _code(error) in {"InvalidParameterException", "ValidationException", ""}:
            raise Invalid("This cursor is not one of ours.", code="bad_cursor") from error
        raise
    users = [_user(raw, _roles(raw["Username"])) for raw in answer["Users"]]
    return users, answer.get("PaginationToken")


def set_roles(user: str, roles: set[Role]) -> User:
    raw, before = _find(user)
    with _told(user):
        _add(raw["Username"], roles - set(before))
        for role in set(before) - roles:
            _cognito().admin_remove_user_from_group(UserPoolId=_pool(), Username=raw["Username"], GroupName=role.value)
    return _user(raw, sorted(roles))


def set_enabled(user: str, enabled: bool) -> User:
    raw, roles = _find(user)
    change = _cognito().admin_enable_user if enabled else _cognito().admin_disable_user
    with _told(user):
        change(UserPoolId=_pool(), Username=raw["Username"])
    return _user({**raw, "Enabled": enabled}, roles)


def delete(user: str) -> None:
    raw, _ = _find(user)
    with _told(user):
        _cognito().admin_delete_user(UserPoolId=_pool(), Username=raw["Username"])


def _cognito() -> Any:
    return client("cognito-idp")


def _pool() -> str:
    pool = settings().user_pool_id
    if not pool:
        raise Unavailable("This platform has no user directory.", code="no_user_directory")
    return pool


def _find(user: str) -> tuple[dict[str, Any], list[Role]]:
    # AdminGetUser takes the sub as well where people sign in by e-mail (Cognito API reference, "Username").
    with _told(user):
        raw = _cognito().admin_get_user(UserPoolId=_pool(), Username=user)
        raw["Attributes"] = raw.pop("UserAttributes")
        return raw, _roles(raw["Username"])


def _add(username: str, roles: set[Role]) -> None:
    for role in sorted(roles):
        _cognito().admin_add_user_to_group(UserPoolId=_pool(), Username=username, GroupName=role.value)


def _roles(username: str) -> list[Role]:
    groups = _cognito().admin_list_groups_for_user(UserPoolId=_pool(), Username=username)["Groups"]
    return sorted(Role(group["GroupName"]) for group in groups if group["GroupName"] in Role._value2member_map_)


def _user(raw: dict[str, Any], roles: list[Role]) -> User:
    attributes = {one["Name"]: one["Value"] for one in raw["Attributes"]}
    return User(
        id=attributes["sub"], email=attributes.get("email", raw["Username"]), roles=roles, enabled=raw["Enabled"],
        status=raw["UserStatus"], created_at_ms=int(raw["UserCreateDate"].timestamp() * 1000),
    )  # fmt: skip


@contextmanager
def _told(user: str) -> Iterator[None]:
    """Cognito's refusals in our words."""
    try:
        yield
    except ParamValidationError as error:
        raise NotFound(f"There is no user {user}.", code="user_not_found") from error
    except ClientError as error:
        match _code(error):
            case "UserNotFoundException" | "InvalidParameterException":
                raise NotFound(f"There is no user {user}.", code="user_not_found") from error
            case "UsernameExistsException":
                raise Conflict(f"There is a user {user} already.", code="name_taken") from error
            case "TooManyRequestsException" | "InternalErrorException":
                raise Unavailable("The user directory is busy.", next_action="Retry soon.") from error
        raise


def _code(error: Exception) -> str:
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""
