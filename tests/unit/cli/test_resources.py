"""Keys and files as people see them."""

import json
from pathlib import Path
from typing import Any

import pytest
from foundry_cli.errors import CliError
from foundry_cli.main import app
from foundry_cli.resources import read_file
from typer.testing import CliRunner

KEYS = [{"id": "key_1", "name": "a", "expires_at_ms": 1_767_225_600_000}, {"id": "key_2", "name": "b"}]


def test_an_expiry_is_a_date_for_people_and_milliseconds_for_scripts(platform: Any) -> None:
    platform.answers["/projects/prj_1/keys"] = KEYS
    shown = CliRunner().invoke(app, ["keys", "list"]).stdout
    assert "2026-01-01 00:00 UTC" in shown and "never" in shown
    assert json.loads(CliRunner().invoke(app, ["keys", "list", "--json"]).stdout) == KEYS


def test_an_unreadable_file_is_named_once_without_numbers(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, reason in (("none", "No such file"), ("", "Is a directory"), ("binary", "not a text file")):
        with pytest.raises(CliError, match=reason) as caught:
            read_file(tmp_path / name)
        assert caught.value.message.count(str(tmp_path)) == 1 and "Errno" not in caught.value.message
