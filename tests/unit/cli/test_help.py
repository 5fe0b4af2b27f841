"""Every command explains itself, in full."""

from collections.abc import Iterator

import click
import pytest
import typer
from foundry_cli.main import app
from typer.testing import CliRunner


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if hasattr(command, "list_commands"):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*path, name))


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_options_are_explained_and_nothing_is_swallowed(path: tuple[str, ...]) -> None:
    shown = " ".join(CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "100"}).output.split())
    assert "completion" not in shown.replace("code_completion", "").replace("chat completion", "")
    for option in ALL[path].params:
        text = getattr(option, "help", None)
        assert text or option.param_type_name == "argument", option.name
        assert " ".join((text or "").split()) in shown
