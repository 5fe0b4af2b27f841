"""Project memberships: written by the app domain alone, read by every function (read-only grant on the app table)."""

from foundry_core.aws import client
from foundry_core.errors import NotFound
from foundry_core.permissions import Action, Level, check_project, granted_everywhere
from foundry_core.principal import Principal
from foundry_core.settings import table_name

_LONGEST_ID = 64


def membership_key(project_id: str, user_id: str) -> dict[str, str]:
    return {"pk": f"PROJECT#{project_id}", "sk": f"MEMBER#{user_id}"}


def level_of(project_id: str, user_id: str) -> Level | None:
    """Membership level, or None for a stranger. One strongly consistent read of one item."""
    key = {name: {"S": value} for name, value in membership_key(project_id, user_id).items()}
    answer = client("dynamodb").get_item(
        TableName=table_name("app"), Key=key, ConsistentRead=True, ProjectionExpression="#l",
        ExpressionAttributeNames={"#l": "level"},
    )  # fmt: skip
    level = answer.get("Item", {}).get("level", {}).get("S")
    return Level(level) if level else None


def exists(project_id: str) -> bool:
    """A project has an owner as long as it exists. One strongly consistent query for one item."""
    answer = client("dynamodb").query(
        TableName=table_name("app"), Limit=1, ConsistentRead=True, Select="COUNT",
        KeyConditionExpression="pk = :pk AND begins_with(sk, :member)",
        ExpressionAttributeValues={":pk": {"S": f"PROJECT#{project_id}"}, ":member": {"S": "MEMBER#"}},
    )  # fmt: skip
    return bool(answer["Count"])


def check_access(principal: Principal, action: Action, project_id: str, *, gone: bool = False) -> None:
    """Raise ``Forbidden`` or ``NotFound`` unless the project exists and ``principal`` may do ``action`` in it.

    ``gone``: who may do it everywhere may do it in a project that is no more as well, to tidy up what it left."""
    level = level_of(project_id, principal.user_id) if len(project_id) <= _LONGEST_ID else None
    tidies_up = gone and granted_everywhere(principal, action)
    if level is None and (len(project_id) > _LONGEST_ID or not (tidies_up or exists(project_id))):
        raise NotFound(f"There is no project {project_id[:_LONGEST_ID]}.", code="project_not_found")
    check_project(principal, action, project_id, level)
