"""The `foundry` command. Heavy modules are imported by the command that needs them: `foundry --help` stays instant."""

import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from foundry_cli.errors import CliError

_INTERRUPTED = 130
# name -> (module, attribute, help). Groups are Typer apps, commands are functions.
_GROUPS = {
    "projects": ("resources", "projects_app", "Projects: the unit of membership and spend."),
    "keys": ("resources", "keys_app", "API keys of a project."),
    "models": ("resources", "models_app", "Registered models."),
    "clusters": ("resources", "clusters_app", "GPU clusters."),
    "deployments": ("deployments", "deployments_app", "Deployments of a project."),
    "endpoints": ("endpoints", "endpoints_app", "Endpoints: the names that keys can call."),
    "credentials": ("credentials", "credentials_app", "Keys of external providers, which gateways use."),
    "blocking": ("blocking", "blocking_app", "Callers that every gateway refuses: networks, countries, rates."),
    "calibration": ("calibration", "calibration_app", "Own measurements that tighten a project's simulations."),
    "recommendations": ("recommendations", "recommendations_app", "Which cluster serves each model cheapest, daily."),
    "blocked": ("blocked", "blocked_app", "Configurations that failed and are not proposed again."),
    "runs": ("runs", "runs_app", "Follow, cancel and retry long work."),
    "sim": ("sim", "sim_app", "The simulator as a tool: predict, train, validate."),
    "gateway": ("gateway", "gateway_app", "The inference gateway: benchmark it."),
}
_COMMANDS = {
    "up": ("platform", "up", "Start the local platform."),
    "down": ("platform", "down", "Stop the local platform; its state stays unless --forget is given."),
    "status": ("platform", "status", "Is the platform up, and where?"),
    "doctor": ("platform", "doctor", "Check this machine, and say what mends it."),
    "demo": ("demo", "demo", "Run the main job on the local platform."),
    "login": ("login", "login", "Sign in: to the local platform, or with --outputs to a deployed one."),
    "simulate": ("simulate", "simulate", "Which plan meets the service levels, at what price?"),
    "deploy": ("deployments", "deploy", "Make a plan real: shows the price, asks, follows the run."),
    "chat": ("chat", "chat", "Stream one chat completion through the gateway."),
}


class LazyGroup(TyperGroup):
    """Knows every command by name; imports the module of one when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*_COMMANDS, *_GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in _COMMANDS:
            return _as_command(cmd_name)
        if cmd_name in _GROUPS:
            module, attribute, summary = _GROUPS[cmd_name]
            group = typer.main.get_command(getattr(import_module(f"foundry_cli.{module}"), attribute))
            group.name, group.help = cmd_name, summary
            return group
        return None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in {**_COMMANDS, **_GROUPS}.items()])


def _as_command(name: str) -> Any:
    module, attribute, summary = _COMMANDS[name]
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, help=summary)(getattr(import_module(f"foundry_cli.{module}"), attribute))
    return typer.main.get_command(single)


app = typer.Typer(cls=LazyGroup, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Foundry: which deployment meets your service levels, at what price; deploy it, route to it, meter it."""


def main() -> None:
    """Entry point: one line for a mistake, a traceback only with FOUNDRY_DEBUG set."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: threads cost the simulator's small products more
    try:
        app(standalone_mode=True)
    except CliError as error:
        _tell(error)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if os.environ.get("FOUNDRY_DEBUG"):
            raise
        _tell(CliError(f"Unexpected: {type(error).__name__}: {error}", "FOUNDRY_DEBUG=1 foundry … shows where"))


def _tell(error: CliError) -> None:
    then = f" → {error.next_command}" if error.next_command else ""
    sys.stderr.write(f"error: {error.message}{then}\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
