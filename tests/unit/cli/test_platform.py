"""The local platform: what is said of it, and that `down --forget` deletes what Foundry made and nothing else."""

from pathlib import Path

import pytest
from foundry_cli.errors import CliError
from foundry_cli.main import app
from foundry_local.state import StateDir, Status
from typer.testing import CliRunner


def test_a_state_is_deleted_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOUNDRY_STATE", str(tmp_path / "state"))
    StateDir(tmp_path / "state").create()
    shown = CliRunner().invoke(app, ["down", "--forget"])
    assert shown.output == "It was not running.\nIts state is deleted.\n" and not (tmp_path / "state").exists()


def test_any_other_directory_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    monkeypatch.setenv("FOUNDRY_STATE", str(tmp_path))
    shown = CliRunner().invoke(app, ["down", "--forget"])
    assert isinstance(shown.exception, CliError) and "nothing was deleted" in shown.exception.message
    assert (tmp_path / "thesis.txt").exists()


def test_a_platform_that_starts_is_not_called_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    starting = Status("starting", 1, 0, step="deploy the stacks")
    monkeypatch.setattr("foundry_cli.platform.control.status", lambda state: starting)
    for command in ("status", "login"):
        shown = CliRunner().invoke(app, [command])
        assert isinstance(shown.exception, CliError)
        assert shown.exception.message == "The local platform is starting: deploy the stacks."
