"""Routes of clusters and deployments."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from foundry_core import secrets
from foundry_core.http import etag, not_modified, require, require_match
from foundry_core.permissions import Action
from foundry_core.principal import Principal

from functions.cluster.kube import version_of
from functions.cluster.schemas import (
    Cluster,
    ClusterAccepted,
    ClusterChange,
    ClusterCreate,
    ClusterPage,
    Deployment,
    DeploymentAccepted,
    DeploymentChange,
    DeploymentCreate,
    DeploymentDetail,
    DeploymentPage,
    NodePage,
    RunAccepted,
    RunStarted,
)
from functions.cluster.services import clusters, deployments, sleep

router = APIRouter()

ClusterId = Annotated[str, Path(max_length=64)]
ProjectId = Annotated[str, Path(max_length=64)]
DeploymentId = Annotated[str, Path(max_length=64)]
Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=2048)]
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "Unchanged"}}


def _tag(resource: Cluster | Deployment) -> str:
    reserved = resource.gpus_reserved if isinstance(resource, Cluster) else 0
    return etag(f"{resource.id}:{resource.version}:{reserved}")


def _meant(request: Request, seen: Cluster | Deployment) -> int | None:
    """The version that If-Match names; None when the client does not mind. ``PreconditionFailed`` for an old one."""
    require_match(request, _tag(seen))
    return seen.version if "if-match" in request.headers else None


@router.get("/clusters", tags=["clusters"], dependencies=[require(Action.CLUSTERS_READ)])
def list_clusters(limit: Limit = 50, cursor: Cursor = None) -> ClusterPage:
    """Clusters under management, oldest first."""
    items, following = clusters.page_of(limit, cursor)
    return ClusterPage(items=items, next_cursor=following)


@router.post("/clusters", tags=["clusters"], status_code=202)
def create_cluster(
    request: ClusterCreate, response: Response, principal: Annotated[Principal, require(Action.CLUSTERS_WRITE)]
) -> ClusterAccepted:
    """Bring a cluster under management: its kubeconfig is checked, encrypted, and used by a registration run."""
    cluster, run = clusters.register(request, principal.user_id, secrets.seal)
    response.headers["location"] = f"/clusters/{cluster.id}"
    return ClusterAccepted(cluster=cluster, run=RunStarted.of(run))


@router.get(
    "/clusters/{cluster_id}", tags=["clusters"], dependencies=[require(Action.CLUSTERS_READ)], responses=_UNCHANGED
)
def get_cluster(cluster_id: ClusterId, request: Request, response: Response) -> Cluster:
    """A cluster with its device groups."""
    cluster = clusters.get(cluster_id)
    if not_modified(request, response, _tag(cluster)):
        return Response(status_code=304, headers=dict(response.headers))  # type: ignore[return-value]
    return cluster


@router.patch("/clusters/{cluster_id}", tags=["clusters"])
def change_cluster(
    cluster_id: ClusterId,
    change: ClusterChange,
    request: Request,
    response: Response,
    principal: Annotated[Principal, require(Action.CLUSTERS_WRITE)],
) -> Cluster:
    """Rename a cluster, set the prices of its devices, or replace its kubeconfig: once the cluster was reached with the
    new one, it is registered again."""
    meant = _meant(request, clusters.get(cluster_id))
    cluster = clusters.change(cluster_id, change, principal.user_id, secrets.seal, version_of, meant)
    response.headers["etag"] = _tag(cluster)
    return cluster


@router.delete("/clusters/{cluster_id}", tags=["clusters"], status_code=204)
def delete_cluster(
    cluster_id: ClusterId, principal: Annotated[Principal, require(Action.CLUSTERS_WRITE)], abandon: bool = False
) -> None:
    """Give a cluster up; nothing inside it is touched. Refused while deployments hold its GPUs, unless it is abandoned:
    its deployments can then be deleted without it, and what they left in it stays there."""
    clusters.delete(cluster_id, principal.user_id, abandon=abandon)


@router.get("/clusters/{cluster_id}/nodes", tags=["clusters"], dependencies=[require(Action.CLUSTERS_READ)])
def list_nodes(cluster_id: ClusterId, limit: Limit = 50, cursor: Cursor = None) -> NodePage:
    """Nodes as they were discovered."""
    clusters.get(cluster_id)
    items, following = clusters.node_page(cluster_id, limit, cursor)
    return NodePage(items=items, next_cursor=following)


@router.get(
    "/projects/{project_id}/deployments", tags=["deployments"], dependencies=[require(Action.PROJECT_READ, gone=True)]
)
def list_deployments(project_id: ProjectId, limit: Limit = 50, cursor: Cursor = None) -> DeploymentPage:
    """Deployments of the project, oldest first."""
    items, following = deployments.page_of(project_id, limit, cursor)
    return DeploymentPage(items=items, next_cursor=following)


@router.post("/projects/{project_id}/deployments", tags=["deployments"], status_code=202)
def create_deployment(
    project_id: ProjectId,
    request: DeploymentCreate,
    response: Response,
    principal: Annotated[Principal, require(Action.DEPLOY)],
) -> DeploymentAccepted:
    """Make a plan real. What can be recomputed of the plan is recomputed before anything is created."""
    deployment, run = deployments.create(project_id, request, principal.user_id)
    response.headers["location"] = f"/projects/{project_id}/deployments/{deployment.id}"
    return DeploymentAccepted(deployment=deployment, run=RunStarted.of(run))


@router.get(
    "/projects/{project_id}/deployments/{deployment_id}",
    tags=["deployments"],
    dependencies=[require(Action.PROJECT_READ, gone=True)],
    responses=_UNCHANGED,
)
def get_deployment(
    project_id: ProjectId, deployment_id: DeploymentId, request: Request, response: Response
) -> DeploymentDetail:
    """A deployment with its plan."""
    deployment = deployments.get(project_id, deployment_id)
    if not_modified(request, response, _tag(deployment)):
        return Response(status_code=304, headers=dict(response.headers))  # type: ignore[return-value]
    return deployment


@router.patch(
    "/projects/{project_id}/deployments/{deployment_id}",
    tags=["deployments"],
    dependencies=[require(Action.DEPLOY)],
)
def change_deployment(
    project_id: ProjectId, deployment_id: DeploymentId, change: DeploymentChange, request: Request, response: Response
) -> DeploymentDetail:
    """Change the description."""
    seen = deployments.get(project_id, deployment_id)
    deployment = deployments.change(project_id, deployment_id, change, _meant(request, seen))
    response.headers["etag"] = _tag(deployment)
    return deployment


@router.post("/projects/{project_id}/deployments/{deployment_id}/sleep", tags=["deployments"], status_code=202)
def sleep_deployment(
    project_id: ProjectId, deployment_id: DeploymentId, principal: Annotated[Principal, require(Action.DEPLOY)]
) -> RunAccepted:
    """Scale a deployment to zero and give its GPUs back. Its endpoint stays: requests wait where its policy says so
    (`hold_s`), and wake it; others are refused with 503."""
    return RunAccepted(run=RunStarted.of(sleep.put_to_sleep(project_id, deployment_id, principal.user_id)))


@router.post("/projects/{project_id}/deployments/{deployment_id}/wake", tags=["deployments"], status_code=202)
def wake_deployment(
    project_id: ProjectId, deployment_id: DeploymentId, principal: Annotated[Principal, require(Action.DEPLOY)]
) -> RunAccepted:
    """Scale a sleeping deployment up to its plan. It stays asleep when that fails, and says why."""
    return RunAccepted(run=RunStarted.of(sleep.wake(project_id, deployment_id, principal.user_id)))


@router.delete("/projects/{project_id}/deployments/{deployment_id}", tags=["deployments"], status_code=202)
def delete_deployment(
    project_id: ProjectId,
    deployment_id: DeploymentId,
    principal: Annotated[Principal, require(Action.DEPLOY, gone=True)],
) -> RunAccepted:
    """Withdraw the endpoint, let open requests finish, and remove everything from the cluster."""
    _, run = deployments.delete(project_id, deployment_id, principal.user_id)
    return RunAccepted(run=RunStarted.of(run))
