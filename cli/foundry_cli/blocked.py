"""`foundry blocked`: configurations that failed, kept out of every later simulation and recommendation."""

from typing import Annotated

import typer

from foundry_cli.client import Api
from foundry_cli.context import AsJson, Yes, remove
from foundry_cli.groups import command_group
from foundry_cli.output import console, show_json, show_list

blocked_app = command_group("Configurations that failed, with the reason.")
_PATH = "/simulator/blocked"
_COLUMNS = {
    "ID": "id", "MODEL": "model", "ENGINE": "engine", "DEVICE": "device", "WEIGHTS": "weights", "TP": "tp", "PP": "pp",
    "EP": "ep", "REASON": "reason",
}  # fmt: skip


@blocked_app.command("list")
def list_blocked(as_json: AsJson = False) -> None:
    """What is not proposed any more, and why."""
    show_list(Api().items(_PATH), _COLUMNS, as_json, "Nothing is blocked.")


@blocked_app.command("add")
def add_blocked(
    reason: Annotated[str, typer.Option(help="Why: what failed, and how.")],
    model: Annotated[str | None, typer.Option(help="Name of the model that it failed with.")] = None,
    engine: Annotated[str | None, typer.Option(help="vllm, sglang or trtllm.")] = None,
    device: Annotated[str | None, typer.Option(help="Device, such as l40s.")] = None,
    weights: Annotated[str | None, typer.Option(help="Format of the weights, such as fp8.")] = None,
    tp: Annotated[int | None, typer.Option(min=1, help="Tensor-parallel degree.")] = None,
    pp: Annotated[int | None, typer.Option(min=1, help="Pipeline-parallel degree.")] = None,
    ep: Annotated[int | None, typer.Option(min=1, help="Expert-parallel degree.")] = None,
    as_json: AsJson = False,
) -> None:
    """Keep a configuration out of what is proposed; what is not given matches everything."""
    fields = {"model": model, "engine": engine, "device": device, "weights": weights, "tp": tp, "pp": pp, "ep": ep}
    made = Api().post(_PATH, {**fields, "reason": reason})
    show_json(made) if as_json else console.print(f"Blocked ({made['id']}).")


@blocked_app.command("remove")
def remove_blocked(blocked: str, yes: Yes = False) -> None:
    """Allow a configuration again."""
    remove(Api(), f"{_PATH}/{blocked}", f"blocked configuration {blocked}", blocked, yes)
