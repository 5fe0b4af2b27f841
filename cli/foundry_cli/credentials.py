"""`foundry credentials`: keys of external providers, given to the platform once and never shown again."""

from pathlib import Path
from typing import Annotated

import typer

from foundry_cli.client import Api
from foundry_cli.context import AsJson, Project, Yes, project_of, remove
from foundry_cli.groups import command_group
from foundry_cli.output import console, moment, show_json, show_list
from foundry_cli.resources import read_file

credentials_app = command_group("Credentials of external providers.")


@credentials_app.command("list")
def list_credentials(project: Project = None, as_json: AsJson = False) -> None:
    """Which credentials the project has; what they are is never shown."""
    api = Api()
    credentials = api.items(f"/projects/{project_of(api, project)['id']}/credentials")
    rows = credentials if as_json else [{**one, "changed": moment(one["changed_at_ms"])} for one in credentials]
    show_list(rows, {"CREDENTIAL": "name", "CHANGED": "changed", "BY": "changed_by"}, as_json, "No credentials yet.")


@credentials_app.command("set")
def set_credential(
    name: str,
    file: Annotated[Path | None, typer.Option(help="Where the key is; without it you are asked.")] = None,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Store a provider's key, or replace it; gateways follow within two seconds."""
    api = Api()
    project_id = project_of(api, project)["id"]
    # Never an argument: those are seen by everybody on the machine, and kept in the shell's history.
    secret = read_file(file) if file else typer.prompt("Key", hide_input=True, err=True)
    credential = api.put(f"/projects/{project_id}/credentials/{name}", {"secret": secret.strip()})
    if as_json:
        return show_json(credential)
    console.print(f"Stored {name}. Endpoints of the project use it with --credential {name}.")


@credentials_app.command("remove")
def remove_credential(name: str, project: Project = None, yes: Yes = False) -> None:
    """Forget a key; endpoints that use it answer no more."""
    api = Api()
    path = f"/projects/{project_of(api, project)['id']}/credentials/{name}"
    remove(api, path, f"credential {name}", name, yes)
