"""Configurations that failed: kept for the whole platform with their reason, and left out of what is proposed."""

from collections.abc import Iterable

from foundry_core.clock import now_ms
from foundry_core.errors import Conflict
from foundry_core.ids import new_id
from foundry_sim.search.plans import BlockedConfiguration

from functions.sim import store
from functions.sim.names import known_device, refuse_unknown
from functions.sim.platform_schemas import Blocked, BlockedCreate

MAX_BLOCKED = 200

every = store.every_blocked
remove = store.delete_blocked


def add(asked: BlockedCreate, user_id: str) -> Blocked:
    """Raises ``Invalid`` for names that would match nothing, ``Conflict`` when there are too many to look at in every
    search."""
    device = known_device(asked.device).name if asked.device else None  # the name that plans use
    refuse_unknown([asked.engine] if asked.engine else [])
    asked = asked.model_copy(update={"device": device, "engine": asked.engine or None})
    if len(every()) >= MAX_BLOCKED:
        raise Conflict(f"{MAX_BLOCKED} configurations are blocked already.", code="too_many_blocked",
                       next_action="Take some back: foundry blocked remove ID.")  # fmt: skip
    return store.insert_blocked(
        Blocked(**asked.model_dump(), id=new_id("blk"), created_by=user_id, created_at_ms=now_ms())
    )


def rules(model: str, kept: Iterable[Blocked]) -> list[BlockedConfiguration]:
    """What of the ``kept`` must not be proposed for the model of this name."""
    fields = set(BlockedConfiguration.model_fields)
    ours = [blocked for blocked in kept if blocked.model in {None, model}]
    return [BlockedConfiguration(**blocked.model_dump(include=fields)) for blocked in ours]
