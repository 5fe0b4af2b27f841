"""Routes of blocking rules, which hold for all gateways and projects."""

from typing import Annotated

from fastapi import APIRouter, Response
from foundry_core.http import require
from foundry_core.permissions import Action
from foundry_core.principal import Principal

from functions.app.blocking import BlockingRule, BlockingRuleCreate
from functions.app.routes.common import Id
from functions.app.schemas import Page
from functions.app.services import blocking as service

router = APIRouter(prefix="/blocking-rules", tags=["gateways"])
Operator = Annotated[Principal, require(Action.GATEWAYS_WRITE)]


@router.get("")
def list_blocking_rules(_: Operator) -> Page[BlockingRule]:
    """All rules: there are at most 200."""
    return Page(items=service.every_of())


@router.post("", status_code=201)
def create_blocking_rule(body: BlockingRuleCreate, response: Response, principal: Operator) -> BlockingRule:
    """Refuse callers at every gateway, from two seconds later on."""
    rule = service.create(body, principal)
    response.headers["location"] = f"/blocking-rules/{rule.id}"
    return rule


@router.delete("/{rule_id}", status_code=204)
def delete_blocking_rule(rule_id: Id, principal: Operator) -> None:
    """Let callers in again."""
    service.delete(rule_id, principal)
