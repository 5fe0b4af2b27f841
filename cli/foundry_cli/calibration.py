"""`foundry calibration`: a project's own measurements tighten its simulations; every change is a version."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from foundry_cli import accuracy
from foundry_cli.client import Api, Json
from foundry_cli.context import AsJson, Project, project_of
from foundry_cli.errors import CliError
from foundry_cli.groups import command_group
from foundry_cli.output import console, moment, show_json, show_table
from foundry_cli.sim import read_rows

calibration_app = command_group("Your own measurements, which tighten the project's simulations.")
_FEWEST = 20  # requests that make a mean
_DEGREES = ("tp", "pp", "ep", "dp")
_FORMATS = ("weights", "activations", "kv", "moe")


class SourceName(StrEnum):
    live = "live"
    twin = "twin"


@calibration_app.command("list")
def list_versions(project: Project = None, as_json: AsJson = False) -> None:
    """Versions, newest first: the first is in force."""
    api = Api()
    found = api.items(f"{_path(api, project)}/versions")
    if as_json:
        return show_json(found)
    rows = ((v["version"], v["point_count"], _origin(v), moment(v["created_at_ms"])) for v in found)
    show_table(("VERSION", "POINTS", "FROM", "WHEN"), rows, "No measurements yet.")


def _origin(version: Json) -> str:
    return "added" if version["reverts_to"] is None else f"as version {version['reverts_to']}"


@calibration_app.command("add")
def add_points(
    points: Annotated[
        Path, typer.Argument(help='Requests with "measured": {"ttft_ms", "tpot_ms"} (means), one JSON object per line.')
    ],
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Add benchmark points, as `foundry sim calibrate` takes them."""
    rows = read_rows(points)
    found = [{"request": {k: v for k, v in r.items() if k != "measured"}, "measured": r.get("measured")} for r in rows]
    _add(Api(), project, found, as_json)


@calibration_app.command("measure")
def measure(
    deployment: Annotated[str, typer.Argument(help="Name of a deployment that has had traffic in the last day.")],
    source: Annotated[SourceName, typer.Option(help="What measured: a twin only repeats the prediction.")] = (
        SourceName.live
    ),
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Add what was measured of a deployment in the last day."""
    api = Api()
    base = f"/projects/{project_of(api, project)['id']}"
    found = api.find(f"{base}/deployments", deployment, "deployment", "foundry deployments list")
    found = api.get(f"{base}/deployments/{found['id']}")
    part = accuracy.measured_by(accuracy.of_deployment(api, found) or {"items": []}, source.value)
    if part is None or part["samples"] < _FEWEST or not part["concurrency"]:
        raise CliError(f"{found['name']} had fewer than {_FEWEST} requests of source {source.value} in the last day.",
                       f"foundry deployments show {found['name']}")  # fmt: skip
    means = {line["metric"]: line["measured"] for line in part["comparisons"] if line["statistic"] == "mean"}
    request = {**_configuration(api, found), **_load(api, base, found, part)}
    measured = {"ttft_ms": means["ttft_ms"], "tpot_ms": means["tpot_ms"]}
    _add(api, project, [{"request": request, "measured": measured}], as_json)


def _configuration(api: Api, deployment: Json) -> Json:
    model, plan = api.get(f"/models/{deployment['model_id']}"), deployment["plan"]
    return {
        "model": {**model["config"], "_name_or_path": model["name"]},
        "device": plan["device"], "engine": plan["engine"],
        "precision": {name: plan["precision"][name] for name in _FORMATS}, **{name: plan[name] for name in _DEGREES},
    }  # fmt: skip


def _load(api: Api, base: str, deployment: Json, part: Json) -> Json:
    """Mean lengths as metered, and what each replica had in flight."""
    groups = api.get(f"{base}/metrics/usage", group_by="endpoint", limit=1000)["items"]
    usage = next((group for group in groups if group["group"] == deployment["name"]), None)
    if usage is None or not usage["requests"] or not usage["output_tokens"]:
        raise CliError(f"Nothing was metered for {deployment['name']} yet.", "Try again in a few minutes.")
    lengths = {"isl": usage["input_tokens"] / usage["requests"], "osl": usage["output_tokens"] / usage["requests"]}
    each = max(1.0, part["concurrency"] / deployment["plan"]["replicas"])
    return {**lengths, "load": {"kind": "closed", "concurrency": each}}


@calibration_app.command("revert")
def revert(
    version: Annotated[int, typer.Argument(min=0, help="0: no measurements.")],
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Go back to an older version, as a new one."""
    api = Api()
    _told(api.post(f"{_path(api, project)}/revert", {"version": version}), as_json)


def _path(api: Api, project: str | None) -> str:
    return f"/projects/{project_of(api, project)['id']}/simulator/calibration"


def _add(api: Api, project: str | None, points: list[Json], as_json: bool) -> None:
    _told(api.post(f"{_path(api, project)}/points", {"points": points}), as_json)


def _told(found: Json, as_json: bool) -> None:
    if as_json:
        return show_json(found)
    console.print(f"Version {found['version']} is in force, with {found['point_count']} points:")
    rows = (
        (point["row"]["device"], point["row"].get("engine") or "–", *_pair(point, "ttft"), *_pair(point, "tpot"))
        for point in found["points"]
    )
    columns = ("DEVICE", "ENGINE", "TTFT ms", "PREDICTED", "TPOT ms", "PREDICTED")
    show_table(columns, rows, "none: predictions are as shipped.")


def _pair(point: Json, name: str) -> tuple[str, str]:
    measured = point[f"{name}_ms"]
    return "–" if measured is None else f"{measured:,.1f}", f"{point[f'predicted_{name}_ms']:,.1f}"
