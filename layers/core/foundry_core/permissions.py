"""The one table of who may do what. Deny by default.

An action is allowed when a role grants it everywhere, or when the principal is a member of the project that owns the
resource in the path, the membership level grants it, and the role does not cap it.
"""

from enum import StrEnum

from foundry_core.errors import Forbidden, NotFound
from foundry_core.principal import Principal, Role


class Action(StrEnum):
    CATALOGUE_READ = "catalogue:read"  # models, devices
    MODELS_WRITE = "models:write"
    CLUSTERS_READ = "clusters:read"
    CLUSTERS_WRITE = "clusters:write"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    PLATFORM_RUNS_READ = "platform_runs:read"  # runs outside any project, such as a cluster registration
    PLATFORM_RUNS_WRITE = "platform_runs:write"
    PROJECTS_CREATE = "projects:create"
    PROJECT_READ = "project:read"
    PROJECT_WRITE = "project:write"  # rename, delete, members, budgets
    KEYS_WRITE = "keys:write"
    SIMULATE = "simulations:write"
    DEPLOY = "deployments:write"
    METRICS_READ = "metrics:read"
    GATEWAYS_WRITE = "gateways:write"


class Level(StrEnum):
    OWNER = "owner"
    MEMBER = "member"
    VIEWER = "viewer"


_EVERYTHING = frozenset(Action)
_READ = frozenset(
    {
        Action.CATALOGUE_READ,
        Action.CLUSTERS_READ,
        Action.PLATFORM_RUNS_READ,
        Action.PROJECT_READ,
        Action.METRICS_READ,
    }
)

EVERYWHERE: dict[Role, frozenset[Action]] = {
    Role.ADMIN: _EVERYTHING,
    Role.DEVELOPER: frozenset(
        {Action.CATALOGUE_READ, Action.CLUSTERS_READ, Action.MODELS_WRITE, Action.PROJECTS_CREATE}
    ),
    Role.OPERATOR: _READ | {Action.CLUSTERS_WRITE, Action.PLATFORM_RUNS_WRITE, Action.GATEWAYS_WRITE},
    Role.AUDITOR: _READ | {Action.USERS_READ},
    Role.CLIENT: frozenset(),
}

_VIEWER = frozenset({Action.PROJECT_READ, Action.METRICS_READ})
_MEMBER = _VIEWER | {Action.KEYS_WRITE, Action.SIMULATE, Action.DEPLOY}
IN_PROJECT: dict[Level, frozenset[Action]] = {
    Level.VIEWER: _VIEWER,
    Level.MEMBER: _MEMBER,
    Level.OWNER: _MEMBER | {Action.PROJECT_WRITE},
}

# What a role may do through membership at most: an auditor never writes, a client never spends on GPUs.
CEILING: dict[Role, frozenset[Action]] = {
    Role.ADMIN: _EVERYTHING,
    Role.DEVELOPER: _EVERYTHING,
    Role.OPERATOR: _EVERYTHING,
    Role.AUDITOR: _VIEWER,
    Role.CLIENT: _VIEWER | {Action.KEYS_WRITE},
}


def granted_everywhere(principal: Principal, action: Action) -> bool:
    return any(action in EVERYWHERE[role] for role in principal.roles)


def granted_in_project(principal: Principal, action: Action, level: Level | None) -> bool:
    if level is None or action not in IN_PROJECT[level]:
        return False
    return any(action in CEILING[role] for role in principal.roles)


def check(principal: Principal, action: Action) -> None:
    """Raise ``Forbidden`` unless a role grants ``action`` everywhere."""
    if not granted_everywhere(principal, action):
        raise Forbidden(f"Your role does not allow {action.value}.", next_action="Ask an administrator for a role.")


def check_project(principal: Principal, action: Action, project_id: str, level: Level | None) -> None:
    """Raise unless ``action`` is allowed in the project; to a stranger a project does not exist (``NotFound``)."""
    if granted_everywhere(principal, action) or granted_in_project(principal, action, level):
        return
    if level is None and not granted_everywhere(principal, Action.PROJECT_READ):
        raise NotFound(f"There is no project {project_id}.", code="project_not_found")
    raise Forbidden(f"Your membership of this project does not allow {action.value}.")
