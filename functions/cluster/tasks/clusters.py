"""Steps of ``register_cluster``: reach it, look at its nodes, make its GPUs known."""

from foundry_core.logs import logger
from foundry_core.runs import Run
from foundry_core.tasks import Output, TaskContext, waiting

from functions.cluster import addons
from functions.cluster.errors import AddonsFailed, ClusterUnreachable
from functions.cluster.kube import version_of
from functions.cluster.nodes import grouped, node_of
from functions.cluster.schemas import Node
from functions.cluster.services import clusters
from functions.cluster.store import clusters as cluster_store
from functions.cluster.tasks.base import credentials_of, kube_of, tasks


@tasks.task("connect")
def connect(context: TaskContext) -> Output:
    cluster_id = context.run.subject_id
    version = version_of(credentials_of(cluster_id))
    clusters.begin_registration(cluster_id, version)
    return {"detail": f"Kubernetes {version}"}


@tasks.task("discover_nodes")
def discover_nodes(context: TaskContext) -> Output:
    nodes = discover(context.run.subject_id)
    gpus = sum(node.gpu_count for node in nodes)
    return {"detail": f"{len(nodes)} nodes, {gpus} GPUs"}


def discover(cluster_id: str) -> list[Node]:
    """Read the nodes and keep them."""
    try:
        nodes, groups = grouped([node_of(obj) for obj in kube_of(cluster_id).items("/api/v1/nodes")])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        logger.exception("nodes", extra={"cluster_id": cluster_id})
        raise ClusterUnreachable("The cluster describes its nodes in a way that Kubernetes does not.") from error
    clusters.keep_nodes(cluster_id, nodes, groups)
    return nodes


@tasks.task("install_addons")
def install_addons(context: TaskContext) -> Output:
    """Nothing to do where every GPU says what it is."""
    cluster_id = context.run.subject_id
    lacking = addons.missing(cluster_store.nodes(cluster_id))
    if not lacking:
        return {"detail": "All GPUs are announced; nothing to install."}
    kube = kube_of(cluster_id)
    for manifest in addons.manifests(_job(context.run)):
        kube.apply(manifest)
    return {"detail": f"Installing the GPU operator for {len(lacking)} node(s)."}


def _job(run: Run) -> str:
    return addons.job_name(run.id, run.attempt)


@tasks.task("addons_ready")
def addons_ready(context: TaskContext) -> Output:
    cluster_id = context.run.subject_id
    if not addons.missing(cluster_store.nodes(cluster_id)):
        return {"status": "ready"}
    outcome, message = addons.outcome(kube_of(cluster_id).get(addons.job_path(_job(context.run))))
    if outcome == "failed":
        raise AddonsFailed(f"The GPU operator could not be installed: {message}",
                           next_action="kubectl -n foundry-system logs -l foundry.dev/component=addons")  # fmt: skip
    if outcome == "absent":
        raise AddonsFailed("The Job that installs the GPU operator is gone.", next_action="Retry the run.")
    if outcome == "complete":
        lacking = addons.missing(discover(cluster_id))
        return waiting(f"{len(lacking)} node(s) are not announced yet") if lacking else {"status": "ready"}
    return waiting("The GPU operator is being installed")
