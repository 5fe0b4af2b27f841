"""Whether a deployment had no request for as long as its owner said, so that it may sleep (decision 16)."""

from datetime import datetime

from foundry_core.errors import Unavailable
from foundry_core.events import new_event
from foundry_core.logs import logger

from functions.metrics import queries, store
from functions.metrics.schemas import DeploymentReady, IdleAsked

# Rows come after the requests they tell of: gateways collect them, and what fails to load is tried again.
_LATE_MS = 900_000


def answer(asked: IdleAsked) -> bool:
    """Tell the cluster domain if it is idle. What cannot be known now is asked again by the next schedule."""
    try:
        idle = _is_idle(asked)
    except Unavailable as error:  # TransientError is one
        logger.warning("idle not known", extra={"deployment_id": asked.deployment_id, "reason": str(error)})
        return False
    if idle:
        data = asked.model_dump(include={"project_id", "deployment_id", "as_of_ms"})
        event = new_event("foundry.deployment.idle.v1", source="metrics", subject=asked.deployment_id, data=data)
        store.tell(event)
    return idle


def _is_idle(asked: IdleAsked) -> bool:
    """One that became ready since then had no time to be used."""
    since_ms = asked.as_of_ms - asked.sleep_after_s * 1000 - _LATE_MS
    ready = store.newest(DeploymentReady, asked.deployment_id)
    if ready is None or datetime.fromisoformat(ready[1]).timestamp() * 1000 > since_ms:
        return False
    return not queries.used_since(asked.project_id, asked.deployment_id, since_ms)
