import socket
import subprocess
import sys
from pathlib import Path

import pytest
from foundry_local.state import StateDir, StateError, Status, write_private


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "state")
    state.create()
    return state


HOLDER = """
import sys; from pathlib import Path
from foundry_local.state import StateDir
StateDir(Path(sys.argv[1])).lock(); print("locked", flush=True); sys.stdin.read()
"""


@pytest.fixture
def held(state: StateDir) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLDER, str(state.root)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_a_directory_has_one_owner_until_its_process_ends(state: StateDir, held: "subprocess.Popen[str]") -> None:
    assert state.owner() == held.pid
    with pytest.raises(StateError, match="already runs"):
        state.lock()
    held.kill()
    held.wait()
    assert state.owner() is None
    state.lock()


def test_nobody_owns_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert StateDir(tmp_path / "none").owner() is None


def test_the_directory_and_its_files_are_private(state: StateDir) -> None:
    state.write_status(Status("ready", 1, 0))
    assert state.root.stat().st_mode & 0o777 == 0o700
    assert state.status.stat().st_mode & 0o777 == 0o600


def test_the_status_is_read_as_written_and_a_newer_one_too(state: StateDir) -> None:
    assert state.read_status() is None
    status = Status("ready", 7, 1, api_url="http://127.0.0.1:1")
    state.write_status(status)
    assert state.read_status() == status
    text = state.status.read_text().replace('"state"', '"of_a_later_version": 1, "state"')
    write_private(state.status, text)
    assert state.read_status() == status


def test_inner_ports_are_kept_and_the_front_may_move(state: StateDir) -> None:
    first = state.ports(0)
    assert len({first.front, first.emulator, first.gateway, first.kube}) == 4
    assert state.ports(None) == first
    moved = state.ports(0)
    assert (moved.emulator, moved.gateway, moved.kube) == (first.emulator, first.gateway, first.kube)


def test_inner_ports_avoid_what_is_taken(state: StateDir) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        ports = state.ports(port - 1)
    assert ports.front == port - 1 and ports.emulator != port


def test_a_state_is_forgotten_whole(state: StateDir) -> None:
    state.write_status(Status("ready", 1, 0))
    state.create()
    state.forget()
    assert not state.root.exists()
    state.forget()


def test_a_directory_of_others_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    state = StateDir(tmp_path)
    state.create()
    state.ports(0)
    with pytest.raises(StateError, match="nothing was deleted"):
        state.forget()
    assert (tmp_path / "thesis.txt").exists()


def test_what_cannot_be_deleted_is_said(state: StateDir, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(state.root)
    with pytest.raises(StateError, match="could be deleted"):
        StateDir(link).forget()
    assert state.root.exists()
