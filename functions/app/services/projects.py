"""Projects: the unit of membership and spend."""

from collections.abc import Callable

from foundry_core import runs
from foundry_core.clock import now_ms
from foundry_core.errors import Conflict
from foundry_core.events import Event, new_event
from foundry_core.ids import new_id
from foundry_core.permissions import Action, Level, granted_everywhere
from foundry_core.principal import Principal
from foundry_core.runs import StepStatus

from functions.app import directory
from functions.app.schemas import Limits, Member, Project, ProjectChange, ProjectCreate
from functions.app.store import projects as store

get = store.load


def create(request: ProjectCreate, principal: Principal) -> Project:
    """The caller becomes the owner. ``Conflict`` with code ``name_taken``."""
    at_ms = now_ms()
    project = Project(id=new_id("prj"), created_by=principal.user_id, created_at_ms=at_ms, **request.model_dump())
    address = directory.address_of(principal.user_id, principal.username)
    owner = Member(user_id=principal.user_id, username=address, level=Level.OWNER, added_at_ms=at_ms)
    store.insert(project, owner, _event("created", project.id, principal, {"name": project.name}))
    return project


def page_of(principal: Principal, limit: int, cursor: str | None) -> tuple[list[Project], str | None]:
    """All projects for those who may read all, else the caller's own."""
    if granted_everywhere(principal, Action.PROJECT_READ):
        return store.page_of_all(limit, cursor)
    return store.page_of_user(principal.user_id, limit, cursor)


def change(
    project_id: str, request: ProjectChange, principal: Principal, check: Callable[[Project], None] = lambda _: None
) -> Project:
    """``check`` sees the project as it is and may refuse (If-Match)."""

    def apply(project: Project) -> tuple[Project, Event]:
        check(project)
        after = changed(project, request)
        return after, _event("changed", project_id, principal, request.model_dump(mode="json", exclude_unset=True))

    return store.update(project_id, apply)


def changed(project: Project, request: ProjectChange) -> Project:
    """Fields that were given replace those of the project; a name or a description cannot be taken away."""
    given = request.model_dump(exclude_unset=True, exclude={"limits"})
    fields = {name: value for name, value in given.items() if value is not None}
    if "limits" in request.model_fields_set:
        fields["limits"] = merged(project.limits, request.limits)
    return project.model_copy(update=fields)


def merged(limits: Limits, change: Limits | None) -> Limits:
    """``None`` lifts every limit; a field that was not given stays."""
    return limits.model_copy(update=change.model_dump(exclude_unset=True)) if change else Limits()


def delete(project_id: str, principal: Principal) -> None:
    """Revokes its keys. ``Conflict`` with code ``project_in_use`` while it has deployments or serves an endpoint."""
    _refuse_deployed(project_id)
    store.delete(project_id, _event("deleted", project_id, principal, {}))


def _refuse_deployed(project_id: str) -> None:
    """By the runs that made and removed them, since the table of deployments is another domain's. One that is made at
    this very moment may be missed: an administrator can still remove it when the project is gone."""
    made, removed = set[str](), set[str]()
    for run in runs.every_of(project_id):
        if run.kind == "deploy_model":
            made.add(run.subject_id)
        elif run.kind == "delete_deployment" and run.step("mark_deleted").status == StepStatus.SUCCEEDED:
            removed.add(run.subject_id)
    if left := sorted(made - removed):
        raise Conflict(f"The project still has the deployments {', '.join(left)}.", code="project_in_use",
                       next_action="Delete them first.")  # fmt: skip


def _event(what: str, project_id: str, principal: Principal, data: dict[str, object]) -> Event:
    facts = {"project_id": project_id, "by": principal.user_id, **data}
    return new_event(f"foundry.project.{what}.v1", source="app", subject=project_id, data=facts)
