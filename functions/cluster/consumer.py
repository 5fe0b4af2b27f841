"""Events of other domains, delivered at least once and in any order."""

from foundry_core.events import Event

from functions.cluster.schemas import WakeWanted
from functions.cluster.services import sleep


def consume(event: Event) -> None:
    """One order to wake. What cannot be done yet, since the deployment is just going to sleep, fails until it can."""
    if event.type == "foundry.deployment.wake_wanted.v1":
        wanted = WakeWanted.model_validate(event.data)
        sleep.wake_wanted(wanted.project_id, wanted.deployment_id)
