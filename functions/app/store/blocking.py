"""Blocking rules: part of the config, so that gateways follow a change within two seconds."""

from foundry_core.errors import Conflict, Invalid, NotFound
from foundry_core.events import Event
from foundry_core.table import conflicts, every, write

from functions.app.blocking import BlockingRule
from functions.app.store.table import CONFIG, BlockingItem, config_version, one_or_none, optimistic, outbox

MOST = 200  # gateways compare each request with every network


def insert(rule: BlockingRule, event: Event) -> None:
    """``Conflict`` with code ``rule_exists``; ``Invalid`` with code ``too_many_rules``."""

    def attempt() -> None:
        rules = every_of()
        if any(known.id == rule.id for known in rules):
            raise Conflict(f"There is a rule for {rule.kind} {rule.value} already: {rule.id}.", code="rule_exists",
                           next_action="Remove it first to change its note.")  # fmt: skip
        if len(rules) >= MOST:
            raise Invalid(f"There are {MOST} rules already.", code="too_many_rules",
                          next_action="Remove rules, or put networks next to each other into one.")  # fmt: skip
        item = BlockingItem(CONFIG, _sk(rule.id), data=rule.model_dump(mode="json"))
        with conflicts("The rules were changed by another writer."):
            write(create=[item, outbox(event)], bump=[config_version()])

    optimistic(attempt)


def every_of() -> list[BlockingRule]:
    return [BlockingRule(**item.data) for item in every(BlockingItem, CONFIG, prefix=_sk(""))]


def delete(rule_id: str, event: Event) -> None:
    def attempt() -> None:
        item = one_or_none(BlockingItem, CONFIG, _sk(rule_id))
        if item is None:
            raise NotFound(f"There is no blocking rule {rule_id}.", code="rule_not_found",
                           next_action="foundry blocking list")  # fmt: skip
        with conflicts("The rules were changed by another writer."):
            write(delete=[item], create=[outbox(event)], bump=[config_version()])

    optimistic(attempt)


def _sk(rule_id: str) -> str:
    return f"BLOCKING#{rule_id}"
