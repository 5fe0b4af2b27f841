"""Events of other domains, delivered at least once and in any order."""

from foundry_core.events import Event

from functions.metrics import idle, store
from functions.metrics.schemas import DeploymentReady, DeploymentVerified, IdleAsked

_KINDS: dict[str, type[DeploymentReady] | type[DeploymentVerified]] = {
    "foundry.deployment.ready.v1": DeploymentReady,
    "foundry.deployment.verified.v1": DeploymentVerified,
}


def consume(event: Event) -> None:
    """A malformed one of ours fails until it is parked."""
    if event.type == "foundry.deployment.idle_asked.v1":
        idle.answer(IdleAsked.model_validate(event.data))
    kind = _KINDS.get(event.type)
    if kind is not None:
        store.keep_newest(event, kind.model_validate(event.data))
