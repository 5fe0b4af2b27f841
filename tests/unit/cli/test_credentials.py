"""`foundry credentials`: the key goes to the platform, and nowhere else."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from foundry_cli.client import Api
from foundry_cli.credentials import credentials_app
from foundry_cli.profile import Profile
from typer.testing import CliRunner

SECRET = "sk-provider-1234567890"
STORED = {"project_id": "prj_1", "name": "main", "changed_by": "u-1", "changed_at_ms": 1_800_000_000_000}


@pytest.fixture
def asked(signed_in: Profile, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    asked: list[tuple[str, str, Any]] = []

    def platform(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        asked.append((request.method, path, json.loads(request.content) if request.content else None))
        if path == "/projects":
            return httpx.Response(200, json={"items": [{"id": "prj_1", "name": "alpha"}], "next_cursor": None})
        if request.method == "GET":
            return httpx.Response(200, json={"items": [STORED], "next_cursor": None})
        return httpx.Response(204) if request.method == "DELETE" else httpx.Response(200, json=STORED)

    monkeypatch.setattr("foundry_cli.credentials.Api", lambda: Api(signed_in, httpx.MockTransport(platform)))
    return asked


def test_the_key_is_asked_for_and_not_shown(asked: list[tuple[str, str, Any]]) -> None:
    result = CliRunner().invoke(credentials_app, ["set", "main"], input=f"{SECRET}\n")
    assert result.exit_code == 0 and SECRET not in result.output
    assert asked[-1] == ("PUT", "/projects/prj_1/credentials/main", {"secret": SECRET})


def test_a_file_is_read_without_its_line_end(asked: list[tuple[str, str, Any]], tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")
    result = CliRunner().invoke(credentials_app, ["set", "main", "--file", str(tmp_path / "key"), "--json"])
    assert json.loads(result.output) == STORED and asked[-1][2] == {"secret": SECRET}


def test_they_are_listed_and_removed(asked: list[tuple[str, str, Any]]) -> None:
    listed = CliRunner().invoke(credentials_app, ["list"])
    assert "main" in listed.output and "u-1" in listed.output
    assert CliRunner().invoke(credentials_app, ["remove", "main"], input="n\n").exit_code
    assert CliRunner().invoke(credentials_app, ["remove", "main", "--yes"]).exit_code == 0
    assert [method for method, *_ in asked].count("DELETE") == 1
    assert asked[-1][:2] == ("DELETE", "/projects/prj_1/credentials/main")
