"""What most commands need: the signed-in client, the project they work in, shared options."""

from typing import Annotated

import typer

from foundry_cli.client import Api, Json
from foundry_cli.errors import CliError
from foundry_cli.output import console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Project = Annotated[str | None, typer.Option("--project", "-p", help="Name or id; the only project by default.")]


def project_of(api: Api, name: str | None) -> Json:
    """The named project, else the one last used, else the only one there is."""
    wanted = name or api.profile.project_id
    if wanted:
        return api.find("/projects", wanted, "project", "foundry projects list")
    projects = api.items("/projects")
    if len(projects) == 1:
        return projects[0]
    if not projects:
        raise CliError("There is no project yet.", "foundry projects create NAME")
    raise CliError("There are several projects: name one with --project.", "foundry projects list")


def confirm(question: str, yes: bool) -> None:
    # On stderr: with --json, stdout is for the answer alone.
    if not yes and not typer.confirm(question, err=True):
        raise CliError("Nothing was changed.")


def remove(api: Api, path: str, what: str, name: str, yes: bool) -> None:
    """Delete the resource at ``path`` once the user agrees; ``what`` is how the question calls it."""
    confirm(f"Remove {what}?", yes)
    api.delete(path)
    console.print(f"Removed {name}.")
