"""A project's own measurements: added, taken back, and used. Every change is a version; none is ever overwritten."""

from typing import Any

from foundry_core.clock import now_ms
from foundry_core.errors import Conflict
from foundry_core.sizes import check_storable
from foundry_sim.calibration import Calibration as Points
from foundry_sim.calibration import Point
from foundry_sim.errors import SimulatorError
from foundry_sim.predict import Method, Prediction
from foundry_sim.predict_io import predict_rows
from foundry_sim.search.plans import CalibrationPoint

from functions.sim import store
from functions.sim.errors import InvalidInput, ModelNotFound
from functions.sim.names import checked
from functions.sim.schemas import Calibration, CalibrationVersion, MeasuredPoint, PredictionList

MAX_BYTES = 320 * 1024  # an item holds 400 KB
_TRIES = 4


def current(project_id: str) -> Calibration:
    return store.newest_calibration(project_id) or _nothing()


def at(project_id: str, version: int) -> Calibration:
    """Raises ``NotFound``."""
    return store.load_calibration(project_id, version) if version else _nothing()


def _nothing() -> Calibration:
    return Calibration(version=0, point_count=0)


def versions(project_id: str, limit: int, cursor: str | None) -> tuple[list[CalibrationVersion], str | None]:
    items, following = store.calibration_page(project_id, limit, cursor)
    return [
        CalibrationVersion(**item.model_dump(include=set(CalibrationVersion.model_fields))) for item in items
    ], following


def add(project_id: str, points: list[MeasuredPoint], user_id: str) -> Calibration:
    """Raises ``InvalidInput`` when one cannot be read or predicted, ``TooLarge``; then nothing changes."""
    measured = [{**checked(point.request), "measured": point.measured.model_dump()} for point in points]
    try:
        added = [_kept(point) for point in Points().add(measured).points]
    except SimulatorError as error:
        raise InvalidInput(str(error)) from error

    def grown(known: Calibration) -> Calibration:
        return known.model_copy(update={"points": [*known.points, *added], "reverts_to": None})

    return _next(project_id, user_id, grown)


def revert(project_id: str, version: int, user_id: str) -> Calibration:
    """A new version that equals an old one. Raises ``NotFound``."""
    old = at(project_id, version)
    return _next(project_id, user_id, lambda _: old.model_copy(update={"reverts_to": version}))


def _next(project_id: str, user_id: str, change: Any) -> Calibration:
    for _ in range(_TRIES):
        known = current(project_id)
        found: Calibration = change(known)
        facts = {"version": known.version + 1, "point_count": len(found.points), "created_by": user_id}
        found = found.model_copy(update={**facts, "created_at_ms": now_ms()})
        check_storable(found.model_dump(mode="json"), what="calibration", max_bytes=MAX_BYTES)
        try:
            return store.insert_calibration(project_id, found)
        except Conflict:
            continue
    raise Conflict("The calibration is being changed by too many writers.", next_action="Try again.")


def _kept(point: Point) -> CalibrationPoint:
    return CalibrationPoint(**{name: getattr(point, name) for name in CalibrationPoint.model_fields})


def predictions(project_id: str, rows: list[dict[str, Any]], method: Method) -> PredictionList:
    """Each row predicted, and corrected by the project's points."""
    known = current(project_id)
    points = tuple(Point(**point.model_dump()) for point in known.points)
    refused = [_refused(row, method) for row in rows]
    asked = [row for row, no in zip(rows, refused, strict=True) if no is None]
    found = iter(predict_rows(asked, method, Points(points, 0, (points,))))
    items = [(no or next(found)).as_dict() for no in refused]
    return PredictionList(items=items, calibration_version=known.version)


def _refused(row: dict[str, Any], method: Method) -> Prediction | None:
    try:
        checked(row)
    except ModelNotFound as error:
        return Prediction(str(row.get("id", ""))[:200], method=method, error=error.detail)
    return None
