"""`foundry blocking`: callers that every gateway refuses before it looks at their key."""

from enum import StrEnum
from typing import Annotated

import typer

from foundry_cli.client import Api
from foundry_cli.context import AsJson, Yes, remove
from foundry_cli.groups import command_group
from foundry_cli.output import console, show_json, show_list

blocking_app = command_group("Callers that every gateway refuses.")
_PATH = "/blocking-rules"
_COLUMNS = {"ID": "id", "KIND": "kind", "VALUE": "value", "NOTE": "note"}


class Kind(StrEnum):
    cidr = "cidr"
    user_agent = "user_agent"
    country = "country"
    rate = "rate"


@blocking_app.command("list")
def list_rules(as_json: AsJson = False) -> None:
    """The rules of the platform."""
    show_list(Api().items(_PATH), _COLUMNS, as_json, "Nobody is blocked.")


@blocking_app.command("add")
def add_rule(
    kind: Kind,
    value: Annotated[str, typer.Argument(help="A network, a part of the User-Agent, a country, requests per minute.")],
    note: Annotated[str, typer.Option(help="Why, for people.")] = "",
    as_json: AsJson = False,
) -> None:
    """Refuse callers: `cidr 203.0.113.0/24`, `user_agent badbot`, `country NL`, `rate 600` (a minute of one client)."""
    made = Api().post(_PATH, {"kind": kind.value, "value": value, "note": note})
    if as_json:
        return show_json(made)
    console.print(f"Blocking {made['kind']} {made['value']} ({made['id']}); gateways follow within two seconds.")


@blocking_app.command("remove")
def remove_rule(rule: str, yes: Yes = False) -> None:
    """Let callers in again."""
    remove(Api(), f"{_PATH}/{rule}", f"blocking rule {rule}", rule, yes)
