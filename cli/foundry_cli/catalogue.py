"""`foundry sim models|devices`: the names that resolve offline, with the facts that decide most."""

from typing import Annotated

import typer

from foundry_cli.context import AsJson
from foundry_cli.output import count, show_json, show_table

Search = Annotated[str, typer.Argument(help="Only names that contain this.")]


def models(search: Search = "", as_json: AsJson = False) -> None:
    """Models that are bundled; of any other, give the path of its config.json."""
    from foundry_sim.facts.architecture import names, resolve

    found = [resolve(name) for name in names() if search.lower() in name.lower()]
    if as_json:
        return show_json([{"name": a.name, "task": a.task, "parameters": a.parameters} for a in found])
    rows = ((a.name, a.task, count(a.parameters), count(a.active_parameters)) for a in found)
    show_table(("MODEL", "TASK", "PARAMETERS", "PER TOKEN"), rows, f"No bundled model has {search!r} in its name.")


def devices(search: Search = "", as_json: AsJson = False) -> None:
    """Devices that Foundry knows; prices are assumptions."""
    from foundry_sim.facts.devices import device, names

    found = [device(name) for name in names() if search.lower() in name.lower()]
    if as_json:
        return show_json([{"name": d.name, "title": d.title, "memory_bytes": d.memory_bytes} for d in found])
    rows = ((d.name, d.title, f"{d.memory_bytes / 2**30:.0f}", f"{d.memory_bandwidth_bytes_per_s / 1e12:.2f}",
             d.devices_per_node, f"${d.price_nanos_per_hour['on_demand'] / 1e9:,.2f}") for d in found)  # fmt: skip
    columns = ("DEVICE", "TITLE", "GiB", "TB/s", "PER NODE", "$/hour")
    show_table(columns, rows, f"No device has {search!r} in its name.")
