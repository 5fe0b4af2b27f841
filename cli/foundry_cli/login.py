"""`foundry login`: to the local platform, or to a deployed one by the outputs of `cdk deploy`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from foundry_cli import auth, browser, profile
from foundry_cli.errors import CliError
from foundry_cli.output import console
from foundry_cli.profile import Profile
from foundry_cli.resources import read_file

Outputs = dict[str, str]


def outputs_of(path: Path) -> Outputs:
    """Outputs of all stacks in a `cdk deploy --outputs-file` file, by name."""
    try:
        stacks = json.loads(read_file(path))
        found: Outputs = {name: value for stack in stacks.values() for name, value in stack.items()}
    except (ValueError, AttributeError) as error:
        raise CliError(f"{path} is not an outputs file.", "cdk deploy --all --outputs-file FILE") from error
    missing = {"ApiUrl", "UserPoolId", "CliClientId", "LoginUrl"} - found.keys()
    if missing:
        raise CliError(f"{path} lacks {', '.join(sorted(missing))}.", "cdk deploy --all --outputs-file FILE")
    return found


def issuer_of(user_pool_id: str) -> str:
    region = user_pool_id.split("_", 1)[0]
    return f"https://cognito-idp.{region}.amazonaws.com/{user_pool_id}"


def _sign_in_deployed(outputs: Outputs, username: str | None) -> Profile:
    issuer, client_id = issuer_of(outputs["UserPoolId"]), outputs["CliClientId"]
    if username:
        password = typer.prompt("Password", hide_input=True)
        return auth.sign_in(outputs["ApiUrl"], issuer, client_id, username, password)
    fields = {
        "api_url": outputs["ApiUrl"],
        "issuer": issuer,
        "client_id": client_id,
        "username": "browser",
        "cognito_url": auth.cognito_url(issuer),
    }
    return auth.with_tokens(fields, browser.tokens(outputs["LoginUrl"], client_id))


def login(
    outputs: Annotated[Path | None, typer.Option(help="File of `cdk deploy --outputs-file`.")] = None,
    username: Annotated[
        str | None, typer.Option(help="Deployed: a password instead of the browser. Local: another demo user.")
    ] = None,
) -> None:
    """Sign in: to the local platform, or with --outputs to a deployed one."""
    if outputs is not None:
        user = _sign_in_deployed(outputs_of(outputs), username)
    else:
        from foundry_cli.platform import sign_in_locally

        user = sign_in_locally(username)
    profile.save(user)
    console.print(f"Signed in to {user.api_url} as {user.username}.")
