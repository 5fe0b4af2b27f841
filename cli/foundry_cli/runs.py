"""Long work as people see it: one line per step while it runs, the reason and the next action when it fails."""

from typing import Annotated

import typer
from rich.text import Text

from foundry_cli.client import Api, Json
from foundry_cli.context import AsJson, Project, project_of
from foundry_cli.errors import CliError
from foundry_cli.groups import command_group
from foundry_cli.output import console, show_json, show_list

runs_app = command_group("Follow, cancel and retry long work.")
_MARKS = {"succeeded": ("✓", "green"), "failed": ("✗", "red"), "running": ("…", "cyan"), "undone": ("↩", "yellow")}
_NO_MARK = ("·", "")


class StepPrinter:
    """Prints each step once when it ends, and the details of a running one as they change."""

    def __init__(self) -> None:
        self._seen: set[tuple[object, ...]] = set()

    def __call__(self, run: Json) -> None:
        for step in run["steps"]:
            self._show(step)

    def _show(self, step: Json) -> None:
        line = (step["name"], step["status"], step.get("detail"))
        if step["status"] == "pending" or line in self._seen:
            return
        self._seen.add(line)
        if step["status"] == "running" and not step.get("detail"):
            return
        _print_step(step)


def _print_step(step: Json) -> None:
    mark = _MARKS.get(step["status"], _NO_MARK)
    console.print(Text.assemble("  ", mark, f" {step['title']}", (_detail(step), "dim")))


def _detail(step: Json) -> str:
    parts = [step["detail"]] if step.get("detail") else []
    if step.get("ended_at_ms") and step.get("started_at_ms"):
        parts.append(f"{(step['ended_at_ms'] - step['started_at_ms']) / 1000:.1f} s")
    return f" ({', '.join(parts)})" if parts else ""


def follow(api: Api, run: Json, quiet: bool = False) -> Json:
    """Wait for the run's end; ``CliError`` with the run's own reason when it did not succeed."""
    ended = api.follow(run["id"], (lambda _: None) if quiet else StepPrinter())
    if ended["status"] != "succeeded":
        error = ended.get("error") or {"detail": f"The run was {ended['status']}."}
        raise CliError(error["detail"], advice(error, ended["id"]))
    return ended


def advice(error: Json, run_id: str) -> str:
    """The run's own next action; where that is to retry, with the command that does."""
    action, retry = error.get("next_action") or "Retry the run.", f"foundry runs retry {run_id}"
    return f"{action.rstrip('.')}: {retry}" if action.lower().endswith("retry the run.") else action


@runs_app.command("list")
def list_runs(
    project: Project = None,
    platform: Annotated[bool, typer.Option("--platform", help="Those of the platform itself instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Runs of a project, or of the platform itself (cluster registrations)."""
    api = Api()
    query = {} if platform else {"project_id": project_of(api, project)["id"]}
    columns = {"RUN": "id", "KIND": "kind", "STATUS": "status", "ATTEMPT": "attempt", "SUBJECT": "subject_id"}
    show_list(api.items("/runs", **query), columns, as_json, "No runs yet.")


@runs_app.command()
def show(run_id: str, as_json: AsJson = False) -> None:
    """Steps of a run, with times and reasons."""
    run = Api().get(f"/runs/{run_id}")
    if as_json:
        return show_json(run)
    console.print(f"{run['kind']} {run['status']} (attempt {run['attempt']})")
    for step in run["steps"]:
        _print_step(step)
    if run.get("error"):
        console.print(run["error"]["detail"], style="red")
        console.print(advice(run["error"], run_id))


@runs_app.command()
def watch(run_id: str) -> None:
    """Follow a run to its end."""
    api = Api()
    follow(api, {"id": run_id})


@runs_app.command()
def cancel(run_id: str) -> None:
    """Stop a run; what it had made is taken back."""
    Api().post(f"/runs/{run_id}/cancel")
    console.print(f"Cancelling. Follow it with: foundry runs watch {run_id}")


@runs_app.command()
def retry(run_id: str, from_step: str | None = typer.Option(None, help="Start again at this step.")) -> None:
    """Start a failed or cancelled run again, from the step that failed."""
    api = Api()
    follow(api, api.post(f"/runs/{run_id}/retry", {"from_step": from_step} if from_step else {}))
