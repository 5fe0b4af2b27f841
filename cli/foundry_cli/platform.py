"""The local platform: up, down, status, doctor, and how to sign in to it."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from foundry_local import control
from foundry_local.errors import PlatformError
from foundry_local.state import DEFAULT_PORT, StateDir, Status
from rich.text import Text

import foundry_cli
from foundry_cli import auth, profile
from foundry_cli.context import AsJson
from foundry_cli.errors import CliError
from foundry_cli.output import console, show_json
from foundry_cli.profile import Profile

Port = Annotated[int | None, typer.Option(help=f"Port of the platform ({DEFAULT_PORT} the first time).")]
_ADMIN = "admin@foundry.local"


def root() -> Path:
    """The checkout: where the stacks are and the state is kept."""
    named = os.environ.get("FOUNDRY_ROOT")
    found = Path(named) if named else Path(foundry_cli.__file__).resolve().parents[2]
    if not (found / "app.py").exists():
        raise CliError("This is not a checkout of Foundry: the local platform needs one.", "set FOUNDRY_ROOT")
    return found


def state() -> Path:
    named = os.environ.get("FOUNDRY_STATE")
    return Path(named) if named else root() / ".foundry" / "local"


def start(port: int | None = None) -> Status:
    """Start the platform, or find the one that runs, saying each step; sign in to it."""
    try:
        status = control.up(state(), port, root(), _say)
    except PlatformError as error:
        raise CliError(str(error), "foundry doctor") from error
    profile.save(sign_in_locally(None, status))
    return status


def _say(status: Status) -> None:
    if status.step:
        console.print(f"  {status.step}", style="dim")


def running() -> Status:
    status = control.status(state())
    if status is None:
        raise CliError("The local platform is not running.", "foundry up")
    if status.state != "ready":
        step = f": {status.step}" if status.step else ""
        raise CliError(f"The local platform is {status.state}{step}.", "foundry status, in a moment")
    return status


def sign_in_locally(username: str | None, status: Status | None = None) -> Profile:
    """Sign in with a demo user of the local platform; its passwords are in the state directory."""
    status = status or running()
    assert status.api_url and status.issuer and status.client_id and status.credentials
    name = username or _ADMIN
    passwords = json.loads(Path(status.credentials).read_text())["passwords"]
    if name not in passwords:
        raise CliError(f"The local platform has no user {name!r}; it has {', '.join(passwords)}.")
    user = auth.sign_in(status.api_url, status.issuer, status.client_id, name, passwords[name], status.cognito_url)
    return user.model_copy(update={"project_id": _kept_project(status.api_url)})


def _kept_project(api_url: str) -> str | None:
    try:
        old = profile.load()
    except CliError:
        return None
    return old.project_id if old.api_url == api_url else None


def up(port: Port = None) -> None:
    """Start the local platform in the background and sign in to it."""
    show_status(start(port))


def down(
    forget: Annotated[bool, typer.Option("--forget", help="Also delete its state.")] = False,
) -> None:
    """Stop the local platform. Its state stays unless --forget is given."""
    try:
        stopped = control.down(state())
        if forget:
            StateDir(state()).forget()
    except PlatformError as error:
        raise CliError(str(error)) from error
    console.print("Stopped." if stopped else "It was not running.")
    if forget:
        console.print("Its state is deleted.")


def status(as_json: AsJson = False) -> None:
    """Is the local platform up, and where? Exit status 1 when it is not."""
    found = control.status(state())
    if as_json:
        show_json(vars(found) if found else {"state": "stopped"})
        raise typer.Exit(0 if found else 1)
    show_status(running())


def show_status(status: Status) -> None:
    console.print(Text.assemble(("ready", "green"), f"  process {status.pid}"))
    for name, value in [
        ("API", status.api_url),
        ("gateway", status.gateway_url),
        ("AWS emulator", status.aws_url),
        ("Kubernetes", status.kube_url),
        ("kubeconfig", status.kubeconfig),
        ("users", status.credentials),
        ("log", status.log),
    ]:
        console.print(f"  {name:<13} {value}", soft_wrap=True)


def doctor(as_json: AsJson = False) -> None:
    """Check what the platform needs on this machine; each failure names the command that mends it."""
    from foundry_local.doctor import check

    findings = check(state(), root())
    if as_json:
        show_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            mark = ("✓", "green") if finding.ok else ("✗", "red")
            console.print(Text.assemble(mark, f" {finding.name}: {finding.detail}"), soft_wrap=True)
            if not finding.ok and finding.mend:
                console.print(Text.assemble("    mend it with: ", (finding.mend, "bold")), soft_wrap=True)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
