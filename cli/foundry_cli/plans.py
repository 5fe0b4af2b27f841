"""Simulations and plans on the platform: ask, wait, show the priced plans."""

from typing import Any

from foundry_core.money import format_usd

from foundry_cli.client import Api, Json
from foundry_cli.errors import CliError
from foundry_cli.output import console, listed, show_table
from foundry_cli.runs import follow


def usable_groups(cluster: Json) -> list[Json]:
    """Device groups that can be planned for; ``CliError`` when there are none."""
    groups = [group for group in cluster["device_groups"] if group["device"] and group["nodes"]]
    if not groups:
        raise CliError(f"Cluster {cluster['name']} has no devices that Foundry knows.", "foundry clusters list")
    return groups


def simulate(api: Api, project_id: str, request: Json, quiet: bool = False) -> tuple[Json, list[Json]]:
    """Run a simulation to its end: the simulation and its plans, best first."""
    path = f"/projects/{project_id}/simulations"
    accepted = api.post(path, request)
    follow(api, accepted["run"], quiet)
    simulation = api.get(f"{path}/{accepted['simulation']['id']}")
    return simulation, api.items(f"{path}/{simulation['id']}/plans")


def layout(plan: Json) -> str:
    """``2 × (TP4 PP2)``: replicas of a parallel layout; degrees of one are left out."""
    degrees = [f"{name.upper()}{plan[name]}" for name in ("tp", "pp", "ep", "dp") if plan[name] > 1]
    return f"{plan['replicas']} × {' '.join(degrees) or 'TP1'}"


def per_million(plan: Json) -> str:
    nanos = plan["cost_nanos_per_million_output_tokens"]
    return "–" if nanos is None else format_usd(nanos)


def gib(size: int) -> str:
    return f"{size / 2**30:.0f}"


def show_plans(plans: list[Json]) -> None:
    """One row per plan: what it is, what it is predicted to do, what it costs."""
    columns = ("DEVICES", "ENGINE", "LAYOUT", "TTFT ms", "TPOT ms", "OUT tok/s", "GiB/dev", "$/hour", "$/1M out")
    show_table(columns, (_row(plan) for plan in plans), "No plan meets the service levels.")


def _row(plan: Json) -> tuple[Any, ...]:
    predicted = plan["predicted"]
    memory = plan["memory"]
    used = memory["usable_bytes"] - memory["free_kv_bytes"]
    return (
        f"{plan['devices']} {plan['device']}",
        f"{plan['engine']} {plan['precision']['label']}",
        layout(plan),
        f"{predicted['ttft_ms']['mean']:.0f}",
        f"{predicted['tpot_ms']['mean']:.1f}",
        f"{predicted['output_tokens_per_s']:,.0f}",
        f"{gib(used)}/{gib(memory['memory_bytes'])}",
        format_usd(plan["cost_nanos_per_hour"]),
        per_million(plan),
    )


def show_replay(outcome: Json) -> None:
    """What the first plan's load looks like event by event; simulations of before have none."""
    from foundry_sim.search.plans import Replay

    from foundry_cli.simulation import replayed

    if outcome.get("replay"):
        for name, text in replayed(Replay(**outcome["replay"])):
            console.print(f"{name} of the first plan: {text}")


def require_plans(simulation: Json, plans: list[Json], quiet: bool = False) -> None:
    """Say what would be possible when nothing meets the service levels, and end the command."""
    if plans:
        return
    outcome = simulation["outcome"]
    if not quiet:
        _show_way_out(outcome)
    raise CliError(f"Infeasible: {outcome['binding_constraint'] or 'no configuration fits'}.", "relax a service level")


def _show_way_out(outcome: Json) -> None:
    console.print(outcome["headline"], style="yellow")
    console.print(outcome["explanation"])
    if outcome.get("nearest"):
        console.print(f"Nearest that this cluster can do: {listed(outcome['nearest']['service_levels'])}, by")
        show_plans([outcome["nearest"]["plan"]])
    for suggestion in outcome.get("hardware", []):
        console.print(f"{suggestion['nodes']} × {suggestion['devices_per_node']} {suggestion['device']} would meet it.")
