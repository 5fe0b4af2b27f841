"""`foundry gateway`: measure the gateway beside its peers on this machine."""

import subprocess
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from foundry_cli.errors import CliError
from foundry_cli.groups import command_group

gateway_app = command_group("The inference gateway.")
ENTRY = Path(__file__).parents[2] / "bench/gateway/run"


class Contestant(StrEnum):
    nginx = "nginx"
    gateway = "gateway"
    sglang_router = "sglang_router"
    litellm = "litellm"


@gateway_app.callback()
def group() -> None:
    """The inference gateway."""


@gateway_app.command()
def bench(
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds of every contestant.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of one measurement.")] = 3.0,
    only: Annotated[list[Contestant] | None, typer.Option(help="Measure this one; repeat it. Default: all.")] = None,
) -> None:
    """Requests per CPU second of the gateway, nginx, sglang-router and LiteLLM. The last line is one JSON object.

    Gateways and engines of its own are started for it; a platform that runs is neither needed nor touched. What is
    missing is built or installed first (minutes, once).
    """
    if not ENTRY.exists():
        raise CliError("The benchmark is not part of the installed package.", "make bench-gateway in a checkout")
    command = [str(ENTRY), "--rounds", str(rounds), "--seconds", str(seconds), *(["--only", *only] if only else [])]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - our own script
