"""Projects, keys, models and clusters: thin commands, one API call each."""

import json
from pathlib import Path
from typing import Annotated

import typer

from foundry_cli import profile
from foundry_cli.client import Api, Json
from foundry_cli.context import AsJson, Project, Yes, confirm, project_of, remove
from foundry_cli.errors import CliError
from foundry_cli.groups import command_group
from foundry_cli.output import console, count, moment, show_json, show_list
from foundry_cli.runs import follow

projects_app = command_group("Projects: the unit of membership and spend.")
keys_app = command_group("API keys of a project.")
models_app = command_group("Registered models.")
clusters_app = command_group("GPU clusters.")
_MAX_FILE_BYTES = 900_000


def read_file(path: Path) -> str:
    """Text of a file that will travel in a request body."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise CliError(f"{path} is larger than {_MAX_FILE_BYTES:,} bytes.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CliError(f"{path} is not a text file.") from error
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}.") from error


@projects_app.command("list")
def list_projects(as_json: AsJson = False) -> None:
    """The projects you may see."""
    show_list(Api().items("/projects"), {"PROJECT": "id", "NAME": "name"}, as_json, "No projects yet.")


@projects_app.command("create")
def create_project(name: str, as_json: AsJson = False) -> None:
    """Create a project; you become its owner."""
    project = Api().post("/projects", {"name": name})
    show_json(project) if as_json else console.print(f"Created project {project['name']} ({project['id']}).")


@projects_app.command("use")
def use_project(name: str) -> None:
    """Make a project the default of later commands."""
    api = Api()
    project = project_of(api, name)
    profile.save(api.profile.model_copy(update={"project_id": project["id"]}))
    console.print(f"Using project {project['name']}.")


@keys_app.command("list")
def list_keys(project: Project = None, as_json: AsJson = False) -> None:
    """Keys of a project; secrets are never shown again."""
    api = Api()
    keys = api.items(f"/projects/{project_of(api, project)['id']}/keys")
    rows = keys if as_json else [{**key, "expires": moment(key.get("expires_at_ms"))} for key in keys]
    show_list(rows, {"KEY": "id", "NAME": "name", "EXPIRES": "expires"}, as_json, "No keys yet.")


@keys_app.command("create")
def create_key(name: str, project: Project = None, as_json: AsJson = False) -> None:
    """Create a key and show its secret once."""
    api = Api()
    key = api.post(f"/projects/{project_of(api, project)['id']}/keys", {"name": name})
    if as_json:
        return show_json(key)
    console.print(f"{key['secret']}", soft_wrap=True)
    console.print("This is the only time that the secret is shown.", style="dim")


@keys_app.command("revoke")
def revoke_key(key: str, project: Project = None, yes: Yes = False) -> None:
    """Revoke a key; the gateway refuses it within two seconds."""
    api = Api()
    path = f"/projects/{project_of(api, project)['id']}/keys"
    found = api.find(path, key, "key", "foundry keys list")
    confirm(f"Revoke key {found['name']}?", yes)
    api.delete(f"{path}/{found['id']}")
    console.print(f"Revoked {found['name']}.")


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """Registered models."""
    models = Api().items("/models")
    rows = models if as_json else [{**model, "size": count(model.get("parameters"))} for model in models]
    show_list(rows, {"MODEL": "id", "NAME": "name", "PARAMETERS": "size"}, as_json, "No models yet.")


@models_app.command("add")
def add_model(
    name: str,
    config: Annotated[Path | None, typer.Option(help="A Hugging Face config.json.")] = None,
    source: Annotated[str | None, typer.Option(help="A repository id that Foundry knows.")] = None,
    repository: Annotated[
        str | None, typer.Option(help="Where engines load the weights; the source by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Register a model from its config.json, or by the name of a well-known one."""
    model = Api().post("/models", {"name": name, "repository": repository, **model_source(config, source)})
    show_json(model) if as_json else console.print(
        f"Registered {model['name']}: {count(model['parameters'])} parameters."
    )


def model_source(config: Path | None, source: str | None) -> Json:
    if (config is None) == (source is None):
        raise CliError("Give either --config FILE or --source REPOSITORY.", "foundry models add --help")
    if config is None:
        return {"source": source}
    try:
        return {"config": json.loads(read_file(config))}
    except ValueError as error:
        raise CliError(f"{config} is not JSON: {error}.") from error


@models_app.command("remove")
def remove_model(model: str, yes: Yes = False) -> None:
    """Forget a model."""
    api = Api()
    found = api.find("/models", model, "model", "foundry models list")
    remove(api, f"/models/{found['id']}", f"model {found['name']}", found["name"], yes)


@clusters_app.command("list")
def list_clusters(as_json: AsJson = False) -> None:
    """Registered clusters."""
    columns = {"CLUSTER": "id", "NAME": "name", "KIND": "kind", "STATUS": "status"}
    show_list(Api().items("/clusters"), columns, as_json, "No clusters yet.")


@clusters_app.command("add")
def add_cluster(
    name: str,
    kubeconfig: Annotated[Path, typer.Option(help="A kubeconfig with a token or client certificate.")],
    kind: Annotated[str, typer.Option(help="eks, aks or onprem")] = "onprem",
    as_json: AsJson = False,
) -> None:
    """Bring a cluster under management and wait until it is ready."""
    api = Api()
    body = {"name": name, "kind": kind, "kubeconfig": read_file(kubeconfig)}
    answer = api.post("/clusters", body)
    follow(api, answer["run"], quiet=as_json)
    cluster = api.get(f"/clusters/{answer['cluster']['id']}")
    show_json(cluster) if as_json else show_groups(cluster)


def show_groups(cluster: Json) -> None:
    columns = {"GROUP": "name", "DEVICE": "device", "NODES": "nodes", "PER NODE": "devices_per_node"}
    show_list(cluster["device_groups"], columns, False, "No device groups.")


@clusters_app.command("show")
def show_cluster(cluster: str, as_json: AsJson = False) -> None:
    """Device groups of a cluster."""
    api = Api()
    found = api.find("/clusters", cluster, "cluster", "foundry clusters list")
    found = api.get(f"/clusters/{found['id']}")
    show_json(found) if as_json else show_groups(found)


@clusters_app.command("remove")
def remove_cluster(
    cluster: str,
    abandon: Annotated[
        bool, typer.Option(help="Also while deployments run on it: it is gone for good, and so is what is in it.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Give a cluster up; refused while deployments run on it, unless it is abandoned."""
    api = Api()
    found = api.find("/clusters", cluster, "cluster", "foundry clusters list")
    left = " and leave what runs on it as it is" if abandon else ""
    path = f"/clusters/{found['id']}" + ("?abandon=true" if abandon else "")
    remove(api, path, f"cluster {found['name']}{left}", found["name"], yes)
