"""Deployments: from a priced plan to an endpoint, and back."""

from typing import Annotated

import typer
from foundry_core.money import format_usd

from foundry_cli import accuracy, plans
from foundry_cli.client import Api, Json
from foundry_cli.context import AsJson, Project, Yes, confirm, project_of
from foundry_cli.groups import command_group
from foundry_cli.output import console, show_json, show_list
from foundry_cli.runs import advice, follow

deployments_app = command_group("Deployments of a project.")
_COLUMNS = {"DEPLOYMENT": "id", "NAME": "name", "STATUS": "status", "DEVICES": "devices", "MODEL": "model_name"}


@deployments_app.command("list")
def list_deployments(project: Project = None, as_json: AsJson = False) -> None:
    """Deployments of a project."""
    api = Api()
    found = api.items(f"/projects/{project_of(api, project)['id']}/deployments")
    show_list(found, _COLUMNS, as_json, "No deployments yet.")


def _find(api: Api, project: str | None, name: str) -> tuple[str, Json]:
    path = f"/projects/{project_of(api, project)['id']}/deployments"
    found = api.find(path, name, "deployment", "foundry deployments list")
    return f"{path}/{found['id']}", found


@deployments_app.command()
def show(name: str, project: Project = None, as_json: AsJson = False) -> None:
    """A deployment with its plan and, once it has traffic, predicted against measured."""
    api = Api()
    path, _ = _find(api, project, name)
    found = api.get(path)
    if as_json:
        return show_json({**found, "accuracy": accuracy.of_deployment(api, found)})
    console.print(f"{found['name']}: {found['status']}, {format_usd(found['cost_nanos_per_hour'])}/hour")
    plans.show_plans([found["plan"]])
    if found.get("error"):
        console.print(found["error"]["detail"], style="red")
        console.print(advice(found["error"], found["run_id"]))
    accuracy.show_all(accuracy.of_deployment(api, found))


@deployments_app.command()
def sleep(name: str, project: Project = None, yes: Yes = False) -> None:
    """Scale a deployment to zero; its endpoint stays, and requests that wait for it wake it."""
    api = Api()
    path, found = _find(api, project, name)
    confirm(f"Put deployment {found['name']} to sleep ({found['devices']} devices)?", yes)
    follow(api, api.post(f"{path}/sleep")["run"])
    console.print(f"{found['name']} is asleep. To have requests wake it and wait for it:")
    console.print(f"  foundry endpoints policy {found['name']} --hold 300")


@deployments_app.command()
def wake(name: str, project: Project = None) -> None:
    """Scale a sleeping deployment up again."""
    api = Api()
    path, found = _find(api, project, name)
    follow(api, api.post(f"{path}/wake")["run"])
    console.print(f"{found['name']} is awake.")


@deployments_app.command()
def delete(name: str, project: Project = None, yes: Yes = False) -> None:
    """Withdraw the endpoint and remove the engines."""
    api = Api()
    path, found = _find(api, project, name)
    confirm(f"Delete deployment {found['name']} ({found['devices']} devices)?", yes)
    answer = api.delete(path) or {}
    follow(api, answer["run"])
    console.print(f"Deleted {found['name']}.")


def create(
    api: Api,
    project_id: str,
    name: str,
    cluster: Json,
    model: Json,
    plan: Json,
    simulation_id: str,
    quiet: bool = False,
) -> Json:
    """Create a deployment and follow its run to the end; the ready deployment."""
    body = {
        "name": name,
        "cluster_id": cluster["id"],
        "model": {
            "id": model["id"],
            "name": model["name"],
            "config": model["config"],
            "repository": model["repository"],
        },
        "plan": plan,
        "simulation_id": simulation_id,
    }
    path = f"/projects/{project_id}/deployments"
    accepted = api.post(path, body)
    follow(api, accepted["run"], quiet)
    return api.get(f"{path}/{accepted['deployment']['id']}")


def deploy(
    model: Annotated[str, typer.Option(help="A registered model.")],
    cluster: Annotated[str, typer.Option(help="A registered cluster.")],
    name: Annotated[str | None, typer.Option(help="Name of the endpoint; the model's by default.")] = None,
    input_tokens: Annotated[int, typer.Option(min=1, help="Mean input tokens of a request.")] = 1024,
    output_tokens: Annotated[int, typer.Option(min=1, help="Mean output tokens of a request.")] = 256,
    concurrency: Annotated[int, typer.Option(min=1, help="Users that each wait for their answer.")] = 32,
    ttft: Annotated[float | None, typer.Option(help="Time to first token at most, ms.")] = None,
    tps: Annotated[float | None, typer.Option(help="Tokens per second for each user at least.")] = None,
    e2e: Annotated[float | None, typer.Option(help="Whole answer at most, ms.")] = None,
    project: Project = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Find the cheapest plan that meets the service levels, show its price, ask, deploy it."""
    api = Api()
    project_id = project_of(api, project)["id"]
    found = api.find("/models", model, "model", "foundry models list")
    where = api.find("/clusters", cluster, "cluster", "foundry clusters list")
    levels = {"ttft_ms": ttft, "tokens_per_second": tps, "e2e_ms": e2e}
    workload = {"input_tokens": input_tokens, "output_tokens": output_tokens, "concurrency": concurrency}
    chosen, where = api.get(f"/models/{found['id']}"), api.get(f"/clusters/{where['id']}")
    request = {
        "model": {"id": chosen["id"], "name": chosen["name"], "config": chosen["config"]},
        "device_groups": plans.usable_groups(where),
        "workload": workload,
        "service_levels": levels,
    }
    simulation, priced = plans.simulate(api, project_id, request, quiet=as_json)
    plans.require_plans(simulation, priced, quiet=as_json)
    if not as_json:
        plans.show_plans(priced[:3])
    best = priced[0]
    price = format_usd(best["cost_nanos_per_hour"])
    confirm(f"Deploy the first one on {best['devices']} × {best['device']} for {price} an hour?", yes)
    deployment = create(api, project_id, name or chosen["name"], where, chosen, best, simulation["id"], quiet=as_json)
    if as_json:
        return show_json(deployment)
    console.print(f'Ready. Try: foundry chat {deployment["name"]} "Hello" --key …')
