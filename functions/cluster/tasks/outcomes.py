"""How the flows end: ready or failed, for a cluster or a deployment, by the kind of the run."""

from foundry_core.logs import logger
from foundry_core.runs import Run, RunError, StepStatus
from foundry_core.tasks import Output, RunCancelled, TaskContext, describe

from functions.cluster.errors import Superseded
from functions.cluster.services import clusters, deployments, sleep
from functions.cluster.tasks.base import deployment_of, tasks


@tasks.task("mark_ready")
def mark_ready(context: TaskContext) -> Output:
    return _cluster_ready(context) if context.run.kind == "register_cluster" else _deployment_ready(context)


def _cluster_ready(context: TaskContext) -> Output:
    cluster = clusters.mark_ready(context.run.subject_id)
    return {"cluster_id": cluster.id, "node_count": cluster.node_count, "gpu_count": cluster.gpu_count}


def _deployment_ready(context: TaskContext) -> Output:
    deployment = deployment_of(context)
    endpoint_id = (context.input.get("publish_endpoint") or {}).get("output", {}).get("endpoint_id")
    source = (context.input.get("wait_ready") or {}).get("output", {}).get("source", "live")
    deployments.mark_ready(deployment, endpoint_id, source)
    return {"deployment_id": deployment.id, "endpoint_id": endpoint_id, "endpoint_name": deployment.name}


@tasks.task("mark_failed", undoes=("begin_sleep",))
def mark_failed(context: TaskContext) -> Output:
    run, reason = context.run, _reason(context)
    try:
        _record(run, reason)
    except Superseded as error:
        logger.info("failure not recorded", extra={"run_id": run.id, "reason": error.detail})
    return {}


def _record(run: Run, reason: RunError) -> None:
    project_id = run.project_id or ""
    match run.kind:
        case "register_cluster":
            clusters.mark_failed(run.subject_id, reason)
        case "wake_deployment":
            sleep.mark_asleep(project_id, run.subject_id, run.id, reason)
        case "sleep_deployment":
            sleep.note_failure(project_id, run.subject_id, run.id, reason)
        case _:
            deployments.mark_failed(project_id, run.subject_id, reason)


def _reason(context: TaskContext) -> RunError:
    """Why the flow failed: its failed step says it best; a poll that gave up has only the flow's sentence."""
    if context.run.cancel_requested:
        return describe(RunCancelled("The run was cancelled."))
    failed = [step.error for step in context.run.steps if step.status == StepStatus.FAILED and step.error]
    if failed:
        return failed[0]
    caught = context.input.get("error") or {}
    cause = str(caught.get("Cause", ""))
    detail = "Something failed on our side; the fault has been logged." if cause.startswith("{") else cause
    return RunError(
        code="flow_failed", detail=detail or str(caught.get("Error", "unknown")), next_action="Retry the run."
    )
