"""Events of other domains, delivered at least once and in any order."""

from foundry_core.events import Event

from functions.cluster.schemas import Idle, WakeWanted
from functions.cluster.services import sleep


def consume(event: Event) -> None:
    """An order to wake: what cannot be done yet, since the deployment is just going to sleep, fails until it can. Or
    that a deployment is idle: what cannot be done is asked again by the next schedule."""
    if event.type == "foundry.deployment.wake_wanted.v1":
        wanted = WakeWanted.model_validate(event.data)
        sleep.wake_wanted(wanted.project_id, wanted.deployment_id)
    elif event.type == "foundry.deployment.idle.v1":
        idle = Idle.model_validate(event.data)
        sleep.sleep_idle(idle.project_id, idle.deployment_id, idle.as_of_ms)
