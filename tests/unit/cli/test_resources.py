"""Keys and files as people see them."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from foundry_cli.client import Api
from foundry_cli.errors import CliError
from foundry_cli.main import app
from foundry_cli.profile import Profile
from foundry_cli.resources import read_file
from typer.testing import CliRunner

KEYS = [{"id": "key_1", "name": "a", "expires_at_ms": 1_767_225_600_000}, {"id": "key_2", "name": "b"}]


def test_an_expiry_is_a_date_for_people_and_milliseconds_for_scripts(platform: Any) -> None:
    platform.answers["/projects/prj_1/keys"] = KEYS
    shown = CliRunner().invoke(app, ["keys", "list"]).stdout
    assert "2026-01-01 00:00 UTC" in shown and "never" in shown
    assert json.loads(CliRunner().invoke(app, ["keys", "list", "--json"]).stdout) == KEYS


@pytest.mark.parametrize(("options", "query"), [([], b""), (["--abandon"], b"abandon=true")])
def test_a_cluster_is_removed_or_abandoned(
    signed_in: Profile, monkeypatch: pytest.MonkeyPatch, options: list[str], query: bytes
) -> None:
    asked: list[httpx.Request] = []

    def platform(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        found = {"items": [{"id": "cls_1", "name": "gpus"}], "next_cursor": None}
        return httpx.Response(204) if request.method == "DELETE" else httpx.Response(200, json=found)

    monkeypatch.setattr("foundry_cli.resources.Api", lambda: Api(signed_in, httpx.MockTransport(platform)))
    result = CliRunner().invoke(app, ["clusters", "remove", "gpus", "--yes", *options])
    assert result.exit_code == 0, result.output
    assert (asked[-1].method, asked[-1].url.path, asked[-1].url.query) == ("DELETE", "/clusters/cls_1", query)


def test_an_unreadable_file_is_named_once_without_numbers(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, reason in (("none", "No such file"), ("", "Is a directory"), ("binary", "not a text file")):
        with pytest.raises(CliError, match=reason) as caught:
            read_file(tmp_path / name)
        assert caught.value.message.count(str(tmp_path)) == 1 and "Errno" not in caught.value.message
