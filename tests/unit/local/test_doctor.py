import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import foundry_local
import pytest
from foundry_local import doctor
from foundry_local.doctor import Check
from foundry_local.state import StateDir

ROOT = Path(__file__).parents[3]


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "state")
    state.create()
    return state


def test_finds_nothing_wrong_here(state: StateDir) -> None:
    wrong = [check for check in doctor.check(state.root, ROOT) if not check.ok and check.name != "ports"]
    assert wrong == []


def test_every_fault_comes_with_a_command(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("json", "no_such_package"))
    monkeypatch.setattr(doctor, "DISK_BYTES", 10**18)
    monkeypatch.setattr(doctor, "MEMORY_BYTES", 10**18)
    monkeypatch.setattr(doctor, "EMULATOR_VERSION", "0")
    monkeypatch.setattr(doctor, "PYTHONS", ((2, 6), (2, 7)))
    monkeypatch.setattr(doctor, "_output", lambda command: None)
    found = doctor.check(state.root, state.root)
    wrong = {check.name: check.mend for check in found if not check.ok}
    assert wrong.keys() >= {"python", "packages", "emulator", "node", "chdb", "memory", "disk", "checkout"}
    assert all(wrong.values())


def test_a_taken_port_is_named(state: StateDir) -> None:
    ports = state.ports(0)
    assert doctor.ports(state).ok
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", ports.front))
        busy.listen()
        assert doctor.ports(state) == Check("ports", False, f"in use: {ports.front} (front)", "foundry up --port 0")
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", ports.kube))
        busy.listen()
        found = doctor.ports(state)
    assert (found.ok, found.mend) == (False, f"lsof -i :{ports.kube}")


def test_an_unwritable_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    found = doctor.writable(StateDir(tmp_path / "a" / "b"))
    assert (found.ok, found.mend) == (False, f"sudo chown -R $(id -u) {tmp_path}")


def test_a_program_that_does_not_run_is_no_answer() -> None:
    assert doctor._output(["/nonexistent"]) is None
    assert doctor._output([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert doctor._output([sys.executable, "-c", "print(1)"]) == "1"


def test_runs_on_a_python_that_has_no_packages(tmp_path: Path) -> None:
    """The machine that needs the doctor most is the one where nothing is installed."""
    code = "from foundry_local import doctor\nfor check in doctor.check(): print(check.name, check.ok)"
    local = Path(foundry_local.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(local), "PATH": "/usr/bin:/bin"}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = dict(line.split() for line in result.stdout.splitlines())
    assert found["python"] == "True" and found["packages"] == "False"
