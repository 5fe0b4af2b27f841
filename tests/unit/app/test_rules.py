"""The app domain's rules on plain data."""

import pytest
from foundry_core.errors import Conflict
from foundry_core.permissions import Level

from functions.app.schemas import Key, KeyChange, Limits, Member, Project, ProjectChange
from functions.app.services import keys, members, projects

LIMITS = Limits(requests_per_minute=1, tokens_per_minute=2, budget_nanos=3)
PROJECT = Project(id="p", name="alpha", description="d", limits=LIMITS, created_by="u", created_at_ms=0)
KEY = Key(id="k", project_id="p", name="one", hint="abcd", expires_at_ms=5, models=["m"], cidrs=["10.0.0.0/8"],
          limits=LIMITS, created_by="u", created_at_ms=0)  # fmt: skip


def test_a_change_of_nothing_changes_nothing() -> None:
    assert projects.changed(PROJECT, ProjectChange()) == PROJECT
    assert keys.changed(KEY, KeyChange()) == KEY


def test_null_lifts_restrictions_but_takes_no_name_away() -> None:
    after = keys.changed(KEY, KeyChange(name=None, expires_at_ms=None, models=None, cidrs=None, limits=None))
    assert after == KEY.model_copy(update={"expires_at_ms": None, "models": None, "cidrs": None, "limits": Limits()})
    same = projects.changed(PROJECT, ProjectChange(name=None, description=None, limits=None))
    assert same == PROJECT.model_copy(update={"limits": Limits()})


@pytest.mark.parametrize(
    ("change", "expected"),
    [({}, (1, 2, 3)), ({"budget_nanos": 0}, (1, 2, 0)), ({"tokens_per_minute": None}, (1, None, 3)),
     ({"requests_per_minute": 9, "budget_nanos": None}, (9, 2, None))],
)  # fmt: skip
def test_limits_are_merged(change: dict[str, int | None], expected: tuple[int | None, ...]) -> None:
    assert tuple(projects.merged(LIMITS, Limits.model_validate(change)).model_dump().values()) == expected


def test_identity_fields_cannot_be_changed() -> None:
    for field in ("id", "project_id", "hint", "created_by"):
        with pytest.raises(ValueError, match=field):
            KeyChange.model_validate({field: "x"})


def test_a_project_needs_an_owner() -> None:
    everybody = [Member(user_id=level.value, username="", level=level, added_at_ms=0) for level in Level]
    members.refuse_without_owner(everybody)
    for rest in ([], [one for one in everybody if one.level != Level.OWNER]):
        with pytest.raises(Conflict):
            members.refuse_without_owner(rest)
