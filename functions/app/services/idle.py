"""Which deployments may fall asleep by themselves. Whether they were used, the metrics domain knows (decision 16)."""

from foundry_core.clock import now_ms
from foundry_core.events import Event, new_event
from foundry_core.table import write

from functions.app.schemas import PublishedEndpoint
from functions.app.store import config as store
from functions.app.store.table import outbox


def ask() -> int:
    """Ask about each deployment that is awake and may sleep. Returns how many; a second time does no harm."""
    at_ms = now_ms()
    endpoints = [endpoint for endpoint in store.load(store.version()).endpoints if _may_sleep(endpoint)]
    questions = [_question(endpoint, id_, at_ms) for endpoint in endpoints for id_ in endpoint.deployment_ids]
    for question in questions:
        write(create=[outbox(question)])
    return len(questions)


def _may_sleep(endpoint: PublishedEndpoint) -> bool:
    awake = any(not backend.asleep for backend in endpoint.backends)
    return awake and endpoint.provider is None and endpoint.policy.sleep_after_s > 0


def _question(endpoint: PublishedEndpoint, deployment_id: str, at_ms: int) -> Event:
    data = {
        "project_id": endpoint.project_id, "deployment_id": deployment_id,
        "sleep_after_s": endpoint.policy.sleep_after_s, "as_of_ms": at_ms,
    }  # fmt: skip
    return new_event("foundry.deployment.idle_asked.v1", source="app", subject=deployment_id, data=data)
