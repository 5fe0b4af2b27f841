"""`foundry gateway`: measure the gateway beside its peers on this machine."""

import subprocess
from pathlib import Path
from typing import Annotated

import typer

gateway_app = typer.Typer(help="The inference gateway.", no_args_is_help=True)
ENTRY = Path(__file__).parents[2] / "bench/gateway/run"


@gateway_app.callback()
def group() -> None:
    """The inference gateway."""


@gateway_app.command()
def bench(
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds of every contestant.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of one measurement.")] = 3.0,
    only: Annotated[list[str] | None, typer.Option(help="nginx, gateway, sglang_router or litellm; repeat it.")] = None,
) -> None:
    """Requests per CPU second of the gateway, nginx, sglang-router and LiteLLM. The last line is one JSON object."""
    if not ENTRY.exists():
        typer.echo(
            "The benchmark is not part of the installed package. Run it from a checkout: make bench-gateway", err=True
        )
        raise typer.Exit(1)
    command = [str(ENTRY), "--rounds", str(rounds), "--seconds", str(seconds), *(["--only", *only] if only else [])]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - our own script
