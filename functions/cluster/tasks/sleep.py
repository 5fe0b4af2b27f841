"""Steps of ``sleep_deployment``, of which ``scale_down`` is also a compensation of ``wake_deployment``."""

from foundry_core.tasks import Output, TaskContext

from functions.cluster import manifests
from functions.cluster.services import deployments, sleep
from functions.cluster.store import deployments as deployment_store
from functions.cluster.tasks.base import deployment_of, kube_of, tasks


@tasks.task("begin_sleep")
def begin_sleep(context: TaskContext) -> Output:
    """Before gateways are told: the run of an earlier wish must not put to sleep what has been woken since."""
    sleep.owned(context.run.project_id or "", context.run.subject_id, context.run.id)
    return {}


@tasks.task("scale_down", undoes=("admit", "apply_manifests", "wait_ready", "verify"))
def scale_down(context: TaskContext) -> Output:
    deployment = deployment_of(context)
    kube = kube_of(deployment.cluster_id)
    if kube.get(manifests.deployment_path(deployment.id)) is None:
        return {"detail": "Nothing is running."}
    spec = deployment_store.load_spec(deployment.project_id, deployment.id)
    kube.apply(manifests.scaled_to_zero(deployments.workload_of(deployment, spec)))
    return {"detail": f"{deployment.replicas} replica(s) end"}


@tasks.task("mark_asleep")
def mark_asleep(context: TaskContext) -> Output:
    sleep.mark_asleep(context.run.project_id or "", context.run.subject_id, context.run.id)
    return {"deployment_id": context.run.subject_id}
