"""Deny by default: who may do what, from roles and memberships alone."""

import itertools

import pytest
from foundry_core.errors import Forbidden, NotFound, Unauthenticated
from foundry_core.permissions import CEILING, EVERYWHERE, IN_PROJECT, Action, Level, check, check_project
from foundry_core.principal import Principal, Role, from_event


def who(*roles: Role) -> Principal:
    return Principal("u", "u@example.com", frozenset(roles))


def allowed(principal: Principal, action: Action, level: Level | None) -> bool:
    try:
        check_project(principal, action, "p", level)
        return True
    except (Forbidden, NotFound):
        return False


def test_without_a_role_nothing_is_allowed() -> None:
    for action, level in itertools.product(Action, [None, *Level]):
        assert not allowed(who(), action, level)
        with pytest.raises(Forbidden):
            check(who(), action)


def test_tables_name_every_role_and_level() -> None:
    assert EVERYWHERE.keys() == CEILING.keys() == set(Role) and IN_PROJECT.keys() == set(Level)


@pytest.mark.parametrize("action", Action)
def test_an_admin_may_do_everything_anywhere(action: Action) -> None:
    check(who(Role.ADMIN), action)
    assert allowed(who(Role.ADMIN), action, None)


@pytest.mark.parametrize("role", Role)
def test_more_membership_is_never_less_authority(role: Role) -> None:
    for action in Action:
        granted = [allowed(who(role), action, level) for level in (None, Level.VIEWER, Level.MEMBER, Level.OWNER)]
        assert granted == sorted(granted)


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.CLIENT])
def test_what_a_role_may_never_do_even_as_owner(role: Role) -> None:
    for action in (Action.DEPLOY, Action.SIMULATE, Action.PROJECT_WRITE, Action.CLUSTERS_WRITE, Action.USERS_WRITE):
        assert not allowed(who(role), action, Level.OWNER)
    assert allowed(who(role), Action.KEYS_WRITE, Level.OWNER) is (role == Role.CLIENT)


def test_two_roles_add_up() -> None:
    both = who(Role.CLIENT, Role.DEVELOPER)
    assert allowed(both, Action.DEPLOY, Level.MEMBER) and not allowed(both, Action.DEPLOY, Level.VIEWER)


def test_to_a_stranger_a_project_does_not_exist() -> None:
    with pytest.raises(NotFound):
        check_project(who(Role.DEVELOPER), Action.PROJECT_READ, "p", None)
    with pytest.raises(Forbidden):  # who may read all projects is told the truth
        check_project(who(Role.AUDITOR), Action.PROJECT_WRITE, "p", None)


@pytest.mark.parametrize(
    ("groups", "roles"),
    [("[admin developer]", {Role.ADMIN, Role.DEVELOPER}), ("[client]", {Role.CLIENT}), ("auditor", {Role.AUDITOR}),
     (["operator"], {Role.OPERATOR}), ("[admin,client]", {Role.ADMIN, Role.CLIENT}), ("", set()), ("[]", set()),
     ("[root ADMIN administrator]", set()), (None, set())],
)  # fmt: skip
def test_groups_as_api_gateway_hands_them_over(groups: object, roles: set[Role]) -> None:
    claims = {"sub": "u1", "username": "ann", "cognito:groups": groups}
    principal = from_event({"requestContext": {"authorizer": {"jwt": {"claims": claims}}}})
    assert (principal.user_id, principal.username, principal.roles) == ("u1", "ann", roles)


@pytest.mark.parametrize(
    "event",
    [{}, {"requestContext": {}}, {"requestContext": {"authorizer": None}}, {"requestContext": {"authorizer": {}}},
     {"requestContext": {"authorizer": {"jwt": {"claims": {"username": "admin", "cognito:groups": "[admin]"}}}}},
     {"headers": {"authorization": "Bearer x"}}],
)  # fmt: skip
def test_no_verified_subject_no_principal(event: dict[str, object]) -> None:
    with pytest.raises(Unauthenticated):
        from_event(event)
