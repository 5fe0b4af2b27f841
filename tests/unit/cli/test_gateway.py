"""`foundry gateway bench`: a front door to the benchmark of a checkout."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from foundry_cli import gateway
from foundry_cli.errors import CliError
from foundry_cli.main import app
from typer.testing import CliRunner

RUN = Path(__file__).parents[3] / "bench/gateway/run"


def test_the_benchmark_gets_what_was_asked_and_its_status_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tmp_path / "run"
    entry.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexit 3\n')
    entry.chmod(0o755)
    monkeypatch.setattr(gateway, "ENTRY", entry)
    done = CliRunner().invoke(app, ["gateway", "bench", "--rounds", "1", "--only", "gateway", "--only", "nginx"])
    assert done.exit_code == 3
    assert (tmp_path / "asked").read_text().split() == [
        "--rounds",
        "1",
        "--seconds",
        "3.0",
        "--only",
        "gateway",
        "nginx",
    ]


def test_without_a_checkout_it_says_where_the_benchmark_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "ENTRY", tmp_path / "nowhere")
    done = CliRunner().invoke(app, ["gateway", "bench"])
    assert isinstance(done.exception, CliError) and done.exception.next_command == "make bench-gateway in a checkout"


@pytest.mark.parametrize("missing", ["python", "cc"])
def test_a_tool_that_is_missing_is_named_with_what_to_do(tmp_path: Path, missing: str) -> None:
    checkout, tools = tmp_path / "checkout", tmp_path / "tools"
    tools.mkdir()
    shutil.copytree(RUN.parent, checkout / "bench/gateway")
    if missing == "cc":
        (checkout / ".venv/bin").mkdir(parents=True)
        (checkout / ".venv/bin/python").symlink_to("/bin/true")
    for tool in ("bash", "dirname", "mkdir"):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    done = subprocess.run(
        ["bash", "bench/gateway/run"], cwd=checkout, env={**os.environ, "PATH": str(tools)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert ("make install" if missing == "python" else "C compiler") in done.stderr
