"""What a run says while it runs and when it fails: its own words, none of them taken for markup."""

import json
from typing import Any

import httpx
import pytest
from foundry_cli.client import Api
from foundry_cli.errors import CliError
from foundry_cli.output import show_table
from foundry_cli.profile import Profile
from foundry_cli.runs import follow, runs_app
from typer.testing import CliRunner

POD_SAYS = "[/usr/bin/python3] exited on [node-a]"
STEP = {"name": "wait", "title": "Wait for [engines]", "status": "failed", "detail": POD_SAYS}


def run(**fields: Any) -> dict[str, Any]:
    return {"id": "run_1", "kind": "deploy_model", "attempt": 1, "status": "failed", "steps": [STEP], **fields}


def platform(user: Profile, answer: dict[str, Any]) -> Api:
    return Api(user, httpx.MockTransport(lambda _: httpx.Response(200, json=answer)))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ({"detail": "No.", "next_action": "Send the kubeconfig again."}, "Send the kubeconfig again."),
        ({"detail": "No.", "next_action": "Retry the run."}, "Retry the run: foundry runs retry run_1"),
        ({"detail": "No.", "next_action": "Add nodes, then retry the run."},
         "Add nodes, then retry the run: foundry runs retry run_1"),
        ({"detail": "No.", "next_action": None}, "Retry the run: foundry runs retry run_1"),
        (None, "Retry the run: foundry runs retry run_1"),
    ],
)  # fmt: skip
def test_a_failed_run_ends_with_its_own_next_action(signed_in: Profile, error: Any, advice: str) -> None:
    with pytest.raises(CliError) as caught:
        follow(platform(signed_in, run(error=error)), {"id": "run_1"}, quiet=True)
    assert caught.value.next_command == advice


def test_brackets_of_others_are_shown_as_they_are(
    signed_in: Profile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = platform(signed_in, run(error={"detail": POD_SAYS, "next_action": "Look at [node-a]."}))
    monkeypatch.setattr("foundry_cli.runs.Api", lambda: api)
    shown = CliRunner().invoke(runs_app, ["show", "run_1"])
    assert shown.exception is None and shown.output.count(POD_SAYS) == 2
    assert "Wait for [engines]" in shown.output and "Look at [node-a]." in shown.output
    with pytest.raises(CliError):
        follow(api, {"id": "run_1"})
    show_table(["NAME"], [["[/x] [dim]y"]], "")
    seen = capsys.readouterr().out
    assert POD_SAYS in seen and "[/x] [dim]y" in seen


def test_quiet_prints_nothing(signed_in: Profile, capsys: pytest.CaptureFixture[str]) -> None:
    follow(platform(signed_in, run(status="succeeded")), {"id": "run_1"}, quiet=True)
    assert capsys.readouterr().out == ""
    follow(platform(signed_in, run(status="succeeded")), {"id": "run_1"})
    assert POD_SAYS in capsys.readouterr().out


def test_runs_as_json_are_the_platforms_answer(signed_in: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundry_cli.runs.Api", lambda: platform(signed_in, run(error=None)))
    assert json.loads(CliRunner().invoke(runs_app, ["show", "run_1", "--json"]).output) == run(error=None)
