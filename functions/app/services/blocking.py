"""Blocking rules of the platform, made and removed by operators."""

from hashlib import sha256

from foundry_core.clock import now_ms
from foundry_core.events import Event, new_event
from foundry_core.principal import Principal

from functions.app.blocking import BlockingRule, BlockingRuleCreate
from functions.app.store import blocking as store

every_of = store.every_of


def create(request: BlockingRuleCreate, principal: Principal) -> BlockingRule:
    """``Conflict`` with code ``rule_exists``; ``Invalid`` with code ``too_many_rules``."""
    rule = BlockingRule(
        id=_id(request), **request.model_dump(), created_by=principal.user_id, created_at_ms=now_ms()
    )  # fmt: skip
    store.insert(rule, _event("created", rule.id, principal))
    return rule


def delete(rule_id: str, principal: Principal) -> None:
    store.delete(rule_id, _event("deleted", rule_id, principal))


def _id(request: BlockingRuleCreate) -> str:
    """The same for the same rule, which cannot be there twice."""
    return f"blk_{sha256(f'{request.kind} {request.value}'.encode()).hexdigest()[:12]}"


def _event(what: str, rule_id: str, principal: Principal) -> Event:
    data = {"rule_id": rule_id, "by": principal.user_id}
    return new_event(f"foundry.blocking_rule.{what}.v1", source="app", subject=rule_id, data=data)
