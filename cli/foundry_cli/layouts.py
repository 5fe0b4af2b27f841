"""`foundry sim layouts`: how a model can be laid out on chosen nodes, by memory alone; instant, offline."""

from typing import TYPE_CHECKING, Annotated

import typer

from foundry_cli.context import AsJson
from foundry_cli.errors import CliError
from foundry_cli.hardware import adapters_of, device_groups, model_of, refuse_unknown, request_of
from foundry_cli.output import console, sentence, show_json, show_table
from foundry_cli.simulation import command_lines

if TYPE_CHECKING:
    from foundry_sim.search.queries import NodeConfiguration

_WORKLOAD = {"input_tokens": 1024, "output_tokens": 256, "concurrency": 256}  # engines admit 256 at once by default
_COLUMNS = ("GROUP", "ENGINE", "TP", "PP", "EP", "DP", "REPLICAS", "AT ONCE", "GiB FREE", "FITS")


def layouts(
    model: Annotated[str, typer.Option(help="Repo id, or path of a config.json.")],
    devices: Annotated[list[str], typer.Option(help="DEVICE[:COUNT or :NODESxDEVICES]; repeat, or use commas.")],
    engine: Annotated[list[str] | None, typer.Option(help="vllm, sglang, trtllm; repeat. Default: vllm.")] = None,
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Longest request, in tokens.")] = None,
    quantised: Annotated[bool, typer.Option("--quantised", help="Also with quantised weights.")] = False,
    lora: Annotated[int, typer.Option(min=0, help="LoRA adapters that are held at once.")] = 0,
    lora_rank: Annotated[int, typer.Option(min=1, help="Their rank.")] = 16,
    as_json: AsJson = False,
) -> None:
    """Valid TP, PP, EP and DP on these nodes: replicas at most, requests at once, memory left."""
    from foundry_sim.errors import SimulatorError
    from foundry_sim.search.queries import node_configurations

    refuse_unknown(engine or [])
    try:
        request = request_of({
            "model": model_of(model), "device_groups": device_groups(devices), "engines": engine or ["vllm"],
            "workload": _WORKLOAD, "max_model_len": max_model_len,
            "quantisation": "allowed" if quantised else "as_shipped",
            "lora": adapters_of(lora, lora_rank),
        })  # fmt: skip
        found = node_configurations(request)
    except SimulatorError as error:
        raise CliError(sentence(error), "foundry sim layouts --help") from None
    if as_json:
        return show_json([item.model_dump(mode="json") for item in found])
    show_table(_COLUMNS, (_row(item) for item in found), "No layout divides the model on these nodes.")
    if found and found[0].fits:
        _show_command("Launch the first", found[0].launch_command)
        _show_command("Benchmark the first", found[0].benchmark_command)
    for item in found:
        if not item.fits:
            console.print(
                f"{_where(item)} TP{item.tp} PP{item.pp} EP{item.ep} DP{item.dp}: {item.reason}.", style="dim"
            )


def _show_command(title: str, command: str) -> None:
    if command:
        console.print(f"\n{title}", style="bold")
        console.print(command_lines(command), soft_wrap=True)


def _where(item: "NodeConfiguration") -> str:
    return f"{item.device_group}, {item.engine} {item.precision}"


def _row(item: "NodeConfiguration") -> tuple[object, ...]:
    return (
        item.device_group, f"{item.engine} {item.precision}", item.tp, item.pp, item.ep, item.dp, item.max_replicas,
        item.max_concurrency, f"{item.memory.free_kv_bytes / 2**30:.1f}", "yes" if item.fits else "no",
    )  # fmt: skip
