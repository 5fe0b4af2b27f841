"""`foundry recommendations`: which cluster serves each model cheapest, as computed each day."""

from foundry_core.money import format_usd

from foundry_cli.client import Api, Json
from foundry_cli.context import AsJson
from foundry_cli.groups import command_group
from foundry_cli.output import console, show_json, show_table
from foundry_cli.runs import follow

recommendations_app = command_group("Each day's choice of cluster for each model.")
_PATH = "/simulator/recommendations"
_NONE = "No recommendations yet: they are made once a day, or now with foundry recommendations refresh."


@recommendations_app.command("list")
def list_recommendations(as_json: AsJson = False) -> None:
    """The clusters for each registered model, cheapest first."""
    _show(Api().items(_PATH), as_json)


@recommendations_app.command("refresh")
def refresh_recommendations(as_json: AsJson = False) -> None:
    """Compute them now, and show them."""
    api = Api()
    ended = follow(api, api.post(_PATH)["run"], quiet=as_json)
    for left_out in () if as_json else (ended.get("result") or {}).get("left_out", []):
        console.print(f"Left out {left_out['name']}: {left_out['reason']}")
    _show(api.items(_PATH), as_json)


def _show(found: list[Json], as_json: bool) -> None:
    if as_json:
        return show_json(found)
    columns = ("MODEL", "WORK", "CLUSTER", "$/hour", "PLAN", "DAY")
    show_table(columns, (_row(item, choice) for item in found for choice in item["choices"]), _NONE)
    for item in found:
        for choice in item["choices"]:
            if choice["cost_nanos_per_hour"] is None:
                console.print(f"{item['model_name']} on {choice['cluster_name']}: {choice['explanation']}", style="dim")


def _row(item: Json, choice: Json) -> tuple[str, ...]:
    cost, plan = choice["cost_nanos_per_hour"], choice["plan"]
    what = f"{plan['devices']} {plan['device']}, {plan['engine']} {plan['precision']['label']}" if plan else ""
    return (
        item["model_name"], item["workload_class"], choice["cluster_name"],
        "–" if cost is None else format_usd(cost), what, item["day"],
    )  # fmt: skip
