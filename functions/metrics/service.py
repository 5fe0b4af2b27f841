"""Usage of a project, and how wrong a prediction was."""

from foundry_core.clock import now_ms
from foundry_core.errors import Invalid, NotFound

from functions.metrics import queries, store
from functions.metrics.compare import against, verification
from functions.metrics.schemas import Accuracy, DeploymentReady, DeploymentVerified, GroupBy, UsagePage

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_LONGEST_MS = 400 * _DAY_MS


def usage(
    project_id: str, from_ms: int | None, to_ms: int | None, by: GroupBy, limit: int, cursor: str | None
) -> UsagePage:
    """The last day unless told otherwise. ``Invalid`` for an empty or endless period."""
    from_ms, to_ms = whole_hours(from_ms, to_ms)
    hours = {"project_id": project_id, "from_s": from_ms // 1000, "to_s": to_ms // 1000}
    offset = _offset(cursor)
    items = queries.groups(hours, by, offset, limit + 1)
    following = str(offset + limit) if len(items) > limit else None
    return UsagePage(from_ms=from_ms, to_ms=to_ms, group_by=by, total=queries.total(hours), items=items[:limit],
                     next_cursor=following)  # fmt: skip


def whole_hours(from_ms: int | None, to_ms: int | None) -> tuple[int, int]:
    """The period from the start of its first hour to the end of its last one."""
    begin_ms = from_ms if from_ms is None else from_ms // _HOUR_MS * _HOUR_MS
    end_ms = to_ms if to_ms is not None else now_ms() + 1
    return period(begin_ms, -(-end_ms // _HOUR_MS) * _HOUR_MS)


def period(from_ms: int | None, to_ms: int | None) -> tuple[int, int]:
    """``[from_ms, to_ms)``: until now and for a day unless told otherwise."""
    to_ms = to_ms if to_ms is not None else now_ms() + 1
    from_ms = from_ms if from_ms is not None else max(0, to_ms - _DAY_MS)
    if from_ms >= to_ms:
        raise Invalid("from_ms must be before to_ms.", code="empty_period")
    if to_ms - from_ms > _LONGEST_MS:
        raise Invalid(f"The period is longer than {_LONGEST_MS // _DAY_MS} days.", code="period_too_long")
    return from_ms, to_ms


def _offset(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isascii() or not cursor.isdigit() or int(cursor) > 10_000_000:
        raise Invalid("This cursor is not one of ours.", code="bad_cursor", next_action="Start at the first page.")
    return int(cursor)


def accuracy(project_id: str, deployment_id: str, from_ms: int | None, to_ms: int | None) -> Accuracy:
    """``NotFound`` until the deployment has been ready once."""
    known = store.newest(DeploymentReady, deployment_id)
    if known is None or known[0].project_id != project_id:
        raise NotFound(f"Nothing is predicted for a deployment {deployment_id} of this project.",
                       code="deployment_not_found", next_action="Wait until it is ready.")  # fmt: skip
    ready, at = known
    verified = store.newest(DeploymentVerified, deployment_id)
    found = queries.measured(project_id, deployment_id, *period(from_ms, to_ms))
    if verified is not None:
        found = [verification(verified[0]), *(one for one in found if one.source != "verification")]
    return Accuracy(
        **ready.model_dump(exclude={"plan"}), plan_id=ready.plan.id, method=ready.plan.method,
        in_domain=ready.plan.in_domain, predicted_at=at, items=[against(ready.plan, one) for one in found],
    )  # fmt: skip
