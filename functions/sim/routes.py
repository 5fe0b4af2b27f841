"""Routes of devices and simulations."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from foundry_core.http import etag, not_modified, require
from foundry_core.permissions import Action
from foundry_core.principal import Principal

from functions.sim import calibrations, service
from functions.sim.schemas import (
    Calibration,
    CalibrationRevert,
    CalibrationVersionPage,
    DevicePage,
    NodeConfigurationList,
    PlanPage,
    PointsAdd,
    PredictionList,
    PredictionsAsk,
    RecommendationList,
    RecommendationsAsk,
    RunStarted,
    SimulationAccepted,
    SimulationCreate,
    SimulationDetail,
    SimulationPage,
)

router = APIRouter()

ProjectId = Annotated[str, Path(max_length=64)]
SimulationId = Annotated[str, Path(max_length=64)]
Limit = Annotated[int, Query(ge=1, le=100)]
Version = Annotated[int | None, Query(ge=0)]
Cursor = Annotated[str | None, Query(max_length=2048)]


@router.get("/devices", tags=["devices"], dependencies=[require(Action.CATALOGUE_READ)])
def list_devices() -> DevicePage:
    """Devices that Foundry knows, with the price assumptions that simulations use."""
    return service.device_page()


@router.get("/projects/{project_id}/simulations", tags=["simulations"], dependencies=[require(Action.PROJECT_READ)])
def list_simulations(project_id: ProjectId, limit: Limit = 50, cursor: Cursor = None) -> SimulationPage:
    """Simulations of the project, newest first."""
    items, following = service.page_of(project_id, limit, cursor)
    return SimulationPage(items=items, next_cursor=following)


@router.post("/projects/{project_id}/simulations", tags=["simulations"], status_code=202)
def create_simulation(
    project_id: ProjectId,
    request: SimulationCreate,
    response: Response,
    principal: Annotated[Principal, require(Action.SIMULATE)],
) -> SimulationAccepted:
    """Search the configurations that meet the service levels. Infeasible is a result, not an error."""
    simulation, run = service.create(project_id, request, principal.user_id)
    response.headers["location"] = f"/projects/{project_id}/simulations/{simulation.id}"
    return SimulationAccepted(simulation=simulation, run=RunStarted.of(run))


@router.get(
    "/projects/{project_id}/simulations/{simulation_id}",
    tags=["simulations"],
    dependencies=[require(Action.PROJECT_READ)],
    responses={304: {"description": "Unchanged"}},
)
def get_simulation(
    project_id: ProjectId, simulation_id: SimulationId, request: Request, response: Response
) -> SimulationDetail:
    """A simulation with its request and its outcome."""
    simulation = service.get(project_id, simulation_id)
    tag = etag(f"{simulation.id}:{simulation.version}:{simulation.status}")
    if not_modified(request, response, tag):
        return Response(status_code=304, headers=dict(response.headers))  # type: ignore[return-value]
    return simulation


@router.get(
    "/projects/{project_id}/simulations/{simulation_id}/plans",
    tags=["simulations"],
    dependencies=[require(Action.PROJECT_READ)],
)
def list_plans(
    project_id: ProjectId, simulation_id: SimulationId, limit: Limit = 50, cursor: Cursor = None
) -> PlanPage:
    """Plans that meet the service levels, best first."""
    items, following = service.plan_page(project_id, simulation_id, limit, cursor)
    return PlanPage(items=items, next_cursor=following)


@router.get(
    "/projects/{project_id}/simulator/calibration", tags=["simulations"], dependencies=[require(Action.PROJECT_READ)]
)
def get_calibration(project_id: ProjectId, version: Version = None) -> Calibration:
    """The project's own measurements, the version in force or an older one."""
    return calibrations.current(project_id) if version is None else calibrations.at(project_id, version)


@router.get(
    "/projects/{project_id}/simulator/calibration/versions",
    tags=["simulations"],
    dependencies=[require(Action.PROJECT_READ)],
)
def list_calibration_versions(
    project_id: ProjectId, limit: Limit = 50, cursor: Cursor = None
) -> CalibrationVersionPage:
    """Versions of the calibration, newest first."""
    items, following = calibrations.versions(project_id, limit, cursor)
    return CalibrationVersionPage(items=items, next_cursor=following)


@router.post("/projects/{project_id}/simulator/calibration/points", tags=["simulations"], status_code=201)
def add_calibration_points(
    project_id: ProjectId, asked: PointsAdd, principal: Annotated[Principal, require(Action.SIMULATE)]
) -> Calibration:
    """Add measurements; simulations and predictions of the project near them are tightened from then on."""
    return calibrations.add(project_id, asked.points, principal.user_id)


@router.post("/projects/{project_id}/simulator/calibration/revert", tags=["simulations"], status_code=201)
def revert_calibration(
    project_id: ProjectId, asked: CalibrationRevert, principal: Annotated[Principal, require(Action.SIMULATE)]
) -> Calibration:
    """Go back to an older version, as a new one."""
    return calibrations.revert(project_id, asked.version, principal.user_id)


@router.post(
    "/projects/{project_id}/simulator/predictions", tags=["simulations"], dependencies=[require(Action.SIMULATE)]
)
def create_predictions(project_id: ProjectId, asked: PredictionsAsk) -> PredictionList:
    """Latency, throughput and memory of given configurations, with the project's calibration; nothing is kept."""
    return calibrations.predictions(project_id, asked.requests, asked.method)


@router.post(
    "/projects/{project_id}/simulator/node-configurations",
    tags=["simulations"],
    dependencies=[require(Action.SIMULATE)],
)
def create_node_configurations(project_id: ProjectId, request: SimulationCreate) -> NodeConfigurationList:
    """How the model can be laid out on the chosen nodes: valid TP, PP, EP and DP, replicas, memory; nothing is kept."""
    return NodeConfigurationList(items=service.layouts(request))


@router.post(
    "/projects/{project_id}/simulator/recommendations", tags=["simulations"], dependencies=[require(Action.SIMULATE)]
)
def create_recommendations(project_id: ProjectId, asked: RecommendationsAsk) -> RecommendationList:
    """The device group that serves each model cheapest; nothing is kept."""
    return RecommendationList(items=service.recommendations(asked))
