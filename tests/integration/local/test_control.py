"""Starting and stopping a platform, as far as it goes without one that can start."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from foundry_local import control
from foundry_local.control import ControlError
from foundry_local.state import StateDir, Status


def test_nothing_runs_where_nothing_was_started(tmp_path: Path) -> None:
    assert control.status(tmp_path / "state") is None
    assert control.down(tmp_path / "state") is False


def test_a_start_that_fails_is_one_message_and_leaves_nothing_running(tmp_path: Path) -> None:
    steps: list[str] = []
    with pytest.raises(ControlError, match="could not be synthesized"):
        control.up(tmp_path / "state", 0, tmp_path, lambda status: steps.append(status.step))
    assert steps[0] == "Synthesize the stacks"
    assert control.status(tmp_path / "state") is None
    assert StateDir(tmp_path / "state").read_status().state == "failed"  # type: ignore[union-attr]


def test_a_port_that_is_taken_is_one_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy, pytest.raises(ControlError, match="is in use: foundry up"):
        control.up(tmp_path / "state", busy.getsockname()[1], tmp_path)


HOLDER = """
import signal, sys; from pathlib import Path
from foundry_local.state import StateDir, Status
state = StateDir(Path(sys.argv[1])); state.create(); lock = state.lock()
if sys.argv[2] == "stubborn": signal.signal(signal.SIGTERM, signal.SIG_IGN)
state.write_status(Status("ready", 1, 0, api_url="http://127.0.0.1:1")); print("here", flush=True)
sys.stdin.read()
"""


def holder(state: Path, how: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLDER, str(state), how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    return process


def test_a_platform_that_runs_is_found(tmp_path: Path) -> None:
    process = holder(tmp_path / "state", "obedient")
    found = Status("ready", 1, 0, api_url="http://127.0.0.1:1")
    assert control.status(tmp_path / "state") == found
    assert control.up(tmp_path / "state") == found
    assert control.down(tmp_path / "state") is True
    assert process.wait(5) != 0
    assert control.status(tmp_path / "state") is None
    process.communicate()


def test_one_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "DOWN_S", 0.3)
    process = holder(tmp_path / "state", "stubborn")
    assert control.down(tmp_path / "state") is True
    assert process.wait(5) == -9
    process.communicate()


def test_a_state_that_another_platform_holds_is_refused(tmp_path: Path) -> None:
    process = holder(tmp_path / "state", "obedient")
    result = subprocess.run(
        [sys.executable, "-m", "foundry_local", "--state", str(tmp_path / "state")],
        capture_output=True, text=True, env=dict(os.environ), timeout=30,
    )  # fmt: skip
    process.kill()
    process.communicate()
    assert result.returncode == 1
    assert result.stderr == f"error: a platform already runs on {tmp_path / 'state'}: foundry status\n"
