"""`foundry endpoints`: the names that a project's keys can call, and those that an external provider answers."""

import json
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer

from foundry_cli.client import Api
from foundry_cli.context import AsJson, Project, Yes, project_of, remove
from foundry_cli.errors import CliError
from foundry_cli.groups import command_group
from foundry_cli.output import console, show_json, show_list
from foundry_cli.resources import read_file

endpoints_app = command_group("Endpoints of a project.")
_NANOS_PER_TOKEN = 1000  # of one dollar for a million tokens


@endpoints_app.command("list")
def list_endpoints(project: Project = None, as_json: AsJson = False) -> None:
    """The names that the project's keys can call."""
    api = Api()
    endpoints = api.items(f"/projects/{project_of(api, project)['id']}/endpoints")
    rows = endpoints if as_json else [{**e, "provider": e["provider"] or "deployment"} for e in endpoints]
    show_list(rows, {"ENDPOINT": "name", "ANSWERED BY": "provider"}, as_json, "No endpoints yet.")


@endpoints_app.command("add")
def add_endpoint(
    name: str,
    provider: Annotated[str, typer.Option(help="openai, anthropic, azure, bedrock, gemini, mistral or together.")],
    url: Annotated[str, typer.Option(help="Where the provider's API is, https only.")],
    model: Annotated[str, typer.Option(help="The model, as the provider calls it.")],
    credential: Annotated[str | None, typer.Option(help="Name of the project's credential for it.")] = None,
    input_price: Annotated[str, typer.Option(help="US dollars for a million input tokens.")] = "0",
    output_price: Annotated[str, typer.Option(help="US dollars for a million output tokens.")] = "0",
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Have an external provider answer for a name."""
    api = Api()
    project_id = project_of(api, project)["id"]
    price = {"input_nanos_per_token": nanos(input_price), "output_nanos_per_token": nanos(output_price)}
    body = {"name": name, "provider": provider, "url": url, "model": model, "credential": credential, "price": price}
    endpoint = api.post(f"/projects/{project_id}/endpoints", body)
    if as_json:
        return show_json(endpoint)
    console.print(f"Endpoint {endpoint['name']} is answered by {endpoint['provider']}.")
    if credential:
        console.print(f"Store its key, unless gateways have it mounted as {project_id}.{credential}:")
        console.print(f"  foundry credentials set {credential} --project {project_id}")


def nanos(dollars: str) -> int:
    """Nano-dollars per token of a price in dollars for a million tokens."""
    try:
        price = Decimal(dollars) * _NANOS_PER_TOKEN
    except InvalidOperation:
        price = Decimal(-1)
    if not price.is_finite() or price < 0 or price != price.to_integral_value():
        raise CliError(f"{dollars!r} is not a price: dollars for a million tokens, in steps of 0.001.")
    return int(price)


@endpoints_app.command("policy")
def endpoint_policy(
    name: str,
    routing: Annotated[
        str | None, typer.Option(help="weighted, least_outstanding, prefix_affinity or predicted_latency.")
    ] = None,
    cache: Annotated[int | None, typer.Option(help="Keep and repeat answers for so many seconds, 0: do not.")] = None,
    coalesce: Annotated[
        int | None, typer.Option(help="Milliseconds that chunks of a stream may wait while a gateway is busy.")
    ] = None,
    guardrails: Annotated[
        Path | None, typer.Option(help="JSON file with a list of guardrails; they replace those there are.")
    ] = None,
    traffic: Annotated[
        Path | None,
        typer.Option(help="JSON file with shares for canaries and shadows; they replace those there are."),
    ] = None,
    fallbacks: Annotated[
        str | None, typer.Option(help="Endpoints asked when this one has no deployment left: a,b. Empty for none.")
    ] = None,
    hold: Annotated[
        int | None, typer.Option(help="Seconds that requests wait for a sleeping deployment, 0: they wake none.")
    ] = None,
    hold_queue: Annotated[
        int | None, typer.Option(help="How many requests may wait for one at each gateway process, 64 if never set.")
    ] = None,
    sleep_after: Annotated[
        int | None, typer.Option(help="Put its deployment to sleep after so many seconds without a request, 0: never.")
    ] = None,
    project: Project = None,
) -> None:
    """Show what gateways do with an endpoint's requests, or change what is given."""
    api = Api()
    path = f"/projects/{project_of(api, project)['id']}/endpoints/{name}"
    given = {
        "routing": routing, "cache_ttl_s": cache, "coalesce_ms": coalesce,
        "guardrails": _entries(guardrails, '{"id": "mail", "kind": "pii"}'),
        "traffic": _entries(traffic, '{"endpoint": "next", "weight": 0.1}'),
        "fallbacks": None if fallbacks is None else [name for name in fallbacks.split(",") if name],
        "hold_s": hold,
        "hold_queue": hold_queue, "sleep_after_s": sleep_after,
    }  # fmt: skip
    policy = {field: value for field, value in given.items() if value is not None}
    endpoint = api.patch(path, {"policy": policy}) if policy else api.get(path)
    show_json(endpoint["policy"])


@endpoints_app.command("adapters")
def endpoint_adapters(
    name: str,
    adapters: Annotated[
        list[str] | None,
        typer.Option("--adapter", help="NAME=ENGINE_NAME, once for each; they replace those there are."),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Have no adapters.")] = False,
    project: Project = None,
) -> None:
    """Show the LoRA adapters that clients call as models, or say which there are."""
    api = Api()
    path = f"/projects/{project_of(api, project)['id']}/endpoints/{name}"
    given = {} if none else _named(adapters or [])
    endpoint = api.patch(path, {"adapters": given}) if none or given else api.get(path)
    show_json(endpoint["adapters"])


def _named(adapters: list[str]) -> dict[str, str]:
    """What clients call each adapter → what its engine does."""
    named = dict(adapter.partition("=")[::2] for adapter in adapters)
    if len(named) < len(adapters) or not all(named) or not all(named.values()):
        raise CliError("Give each adapter once, as NAME=ENGINE_NAME: --adapter support=org/support-lora.")
    return named


def _entries(path: Path | None, example: str) -> list[Any] | None:
    """A list from a file; the platform checks what its entries say."""
    if path is None:
        return None
    try:
        entries = json.loads(read_file(path))
    except json.JSONDecodeError as error:
        raise CliError(f"{path} is not JSON: {error}.") from error
    if not isinstance(entries, list):
        raise CliError(f"{path} must hold a list, such as [{example}].")
    return entries


@endpoints_app.command("remove")
def remove_endpoint(name: str, project: Project = None, yes: Yes = False) -> None:
    """Withdraw an endpoint that an external provider answers."""
    api = Api()
    path = f"/projects/{project_of(api, project)['id']}/endpoints/{name}"
    remove(api, path, f"endpoint {name}", name, yes)
