"""What the steps share: their register, and the way to a cluster."""

from foundry_core import secrets
from foundry_core.tasks import TaskContext, Tasks

from functions.cluster import manifests
from functions.cluster.kube import Kube
from functions.cluster.kubeconfig import Credentials
from functions.cluster.schemas import Deployment
from functions.cluster.services import clusters, deployments
from functions.cluster.store import clusters as cluster_store

tasks = Tasks("cluster")


def kube_of(cluster_id: str) -> Kube:
    """The cluster's API, with the credentials opened for this call only."""
    return Kube(credentials_of(cluster_id))


def credentials_of(cluster_id: str) -> Credentials:
    opened = secrets.unseal(cluster_store.load_secret(cluster_id), clusters.binding(cluster_id))
    return Credentials.model_validate_json(opened)


def deployment_of(context: TaskContext) -> Deployment:
    return deployments.load(context.run.project_id or "", context.run.subject_id)


def engine_service(deployment: Deployment) -> str:
    return f"{manifests.service_path(deployment.id)}:http"
