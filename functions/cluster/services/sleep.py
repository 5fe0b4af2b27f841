"""How a deployment sleeps: ready → sleeping → asleep → waking → ready. Asleep, it holds no GPUs.

The run that may work on it is written together with the wish: however often and by however many it is asked for, it is
one run, and the run of an earlier wish, when it is retried, changes nothing any more.
"""

from foundry_core import runs
from foundry_core.clock import now_ms
from foundry_core.errors import Conflict, NotFound
from foundry_core.events import Event
from foundry_core.ids import new_id
from foundry_core.runs import Run, RunError

from functions.cluster.errors import Superseded
from functions.cluster.schemas import Deployment, DeploymentStatus
from functions.cluster.services.deployments import refuse_busy, release_gpus, switch_status
from functions.cluster.store import deployments as store

_FLOWS = {DeploymentStatus.SLEEPING: "sleep_deployment", DeploymentStatus.WAKING: "wake_deployment"}
_PAUSE_MS = 60_000
_IDLE_HOLDS_MS = 300_000  # what is delivered later may not be true any more
_SLEEPS = {DeploymentStatus.SLEEPING, DeploymentStatus.ASLEEP, DeploymentStatus.WAKING}


def put_to_sleep(project_id: str, deployment_id: str, user_id: str) -> Run:
    """Scale it to zero. ``Conflict`` while another run works on it, or when it is not ready."""
    return _wish(project_id, deployment_id, DeploymentStatus.SLEEPING, user_id)


def wake(project_id: str, deployment_id: str, user_id: str) -> Run:
    """Scale it up again. ``Conflict`` while another run works on it, or when it does not sleep."""
    return _wish(project_id, deployment_id, DeploymentStatus.WAKING, user_id)


def wake_wanted(project_id: str, deployment_id: str) -> Run | None:
    """A gateway holds requests for it. None when there is nothing to wake, or that was tried in vain a moment ago.
    ``Conflict`` while it goes to sleep."""
    try:
        deployment = store.load(project_id, deployment_id)
    except NotFound:
        return None
    wakes = deployment.status in _SLEEPS and not _just_failed(deployment)
    return wake(project_id, deployment_id, "gateway") if wakes else None


def sleep_idle(project_id: str, deployment_id: str, as_of_ms: int) -> Run | None:
    """Its owner wants it to sleep when it is idle. None when that is known too late, it is not ready or is busy."""
    if now_ms() - as_of_ms > _IDLE_HOLDS_MS:
        return None
    try:
        deployment = store.load(project_id, deployment_id)
        # An earlier delivery may have ended before it made the run that it had kept the id of.
        begun = deployment.status == DeploymentStatus.SLEEPING and _goes_on(deployment.run_id)
        sleeps = begun or deployment.status == DeploymentStatus.READY
        return put_to_sleep(project_id, deployment_id, "schedule") if sleeps else None
    except (NotFound, Conflict):
        return None


def _just_failed(deployment: Deployment) -> bool:
    """Under traffic there is an order every few seconds, and each would be another run that fails."""
    if deployment.status != DeploymentStatus.ASLEEP or deployment.error is None or deployment.run_id is None:
        return False
    return now_ms() - (runs.get(deployment.run_id).ended_at_ms or 0) < _PAUSE_MS


def _wish(project_id: str, deployment_id: str, status: DeploymentStatus, user_id: str) -> Run:
    def begin(deployment: Deployment) -> Event | None:
        if deployment.status == status and _goes_on(deployment.run_id):
            return None
        refuse_busy(deployment)
        deployment.run_id, deployment.error = new_id("run"), None
        return switch_status(deployment, status, by=user_id)

    deployment = store.update(project_id, deployment_id, begin)
    return runs.create(
        _FLOWS[status], subject_id=deployment_id, created_by=user_id, project_id=project_id, run_id=deployment.run_id
    )


def _goes_on(run_id: str | None) -> bool:
    """Whether a run is at work, or will be: its id is kept before it is there."""
    try:
        return run_id is not None and not runs.get(run_id).status.ended
    except NotFound:
        return True


def owned(project_id: str, deployment_id: str, run_id: str) -> Deployment:
    """The deployment, which the run may work on; ``Superseded`` when another run has been asked for since."""
    deployment = store.load(project_id, deployment_id)
    _refuse_superseded(deployment, run_id)
    return deployment


def _refuse_superseded(deployment: Deployment, run_id: str) -> None:
    if deployment.run_id != run_id:
        raise Superseded(f"Run {deployment.run_id} works on this deployment now.", next_action="Follow that run.")


def begin_wake(project_id: str, deployment_id: str, run_id: str) -> Deployment:
    """The run has started, or started again."""

    def apply(deployment: Deployment) -> Event | None:
        _refuse_superseded(deployment, run_id)
        deployment.error = None
        return switch_status(deployment, DeploymentStatus.WAKING)

    return store.update(project_id, deployment_id, apply)


def mark_asleep(project_id: str, deployment_id: str, run_id: str, error: RunError | None = None) -> None:
    """``error``: why it could not be woken."""

    def apply(deployment: Deployment) -> Event | None:
        _refuse_superseded(deployment, run_id)
        deployment.error = error
        return switch_status(deployment, DeploymentStatus.ASLEEP, error=error and error.model_dump())

    release_gpus(owned(project_id, deployment_id, run_id))
    store.update(project_id, deployment_id, apply)


def note_failure(project_id: str, deployment_id: str, run_id: str, error: RunError) -> None:
    """Why it is neither ready nor asleep: the run is to be retried, or the deployment woken."""

    def apply(deployment: Deployment) -> None:
        _refuse_superseded(deployment, run_id)
        deployment.error = error

    store.update(project_id, deployment_id, apply)
