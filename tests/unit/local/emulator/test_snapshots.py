import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from foundry_local.emulator import snapshots
from foundry_local.emulator.snapshots import SnapshotError, Snapshotter, load

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def snapshotter(path: Path, state: Any, **more: Any) -> Snapshotter:
    return Snapshotter(path, lambda: state, repr, **more)


def identity(value: dict[str, Any]) -> dict[str, Any]:
    return value


def test_saves_and_loads(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    assert load(path, identity) is None
    snapshotter(path, {"a": [1, {"b": "é"}]}).save()
    assert load(path, identity) == {"a": [1, {"b": "é"}]}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_failed_save_keeps_the_last_one_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    snapshotter(path, {"n": 1}).save()

    def broken() -> dict[str, Any]:
        raise ValueError("half a state")

    with pytest.raises(SnapshotError, match="half a state"):
        Snapshotter(path, broken, repr).save()
    assert load(path, identity) == {"n": 1}


def test_a_save_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SAVE_LIMIT_S", 0.1)
    with pytest.raises(SnapshotError, match="too long"):
        Snapshotter(tmp_path / "s.json", lambda: time.sleep(60) or {}, repr).save()


def test_a_damaged_file_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"a": ')
    with pytest.raises(SnapshotError, match="move it away"):
        load(tmp_path / "s.json", identity)


def test_saves_what_was_marked_and_nothing_else(tmp_path: Path) -> None:
    path, state = tmp_path / "s.json", {"n": 0}
    saver = snapshotter(path, state, period_s=0.01)
    saver.start()
    time.sleep(0.05)
    assert not path.exists()
    state["n"] = 1
    saver.mark()
    deadline = time.monotonic() + 5
    while load(path, identity) != {"n": 1}:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    state["n"] = 2
    saver.stop()
    assert load(path, identity) == {"n": 2}


def test_goes_on_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "s.json"

    def dump() -> dict[str, Any]:
        if not (tmp_path / "mended").exists():
            raise OSError("disk full")
        return {"ok": True}

    saver = Snapshotter(path, dump, repr, period_s=0.01)
    saver.start()
    saver.mark()
    time.sleep(0.1)
    (tmp_path / "mended").touch()
    deadline = time.monotonic() + 5
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    saver.stop()
    assert json.loads(path.read_text()) == {"ok": True}


def test_the_writer_holds_no_socket_of_its_parent(tmp_path: Path) -> None:
    """Else a killed platform's port would stay taken for as long as a save is running."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    began = tmp_path / "began"

    def dump() -> dict[str, Any]:
        began.touch()
        time.sleep(0.5)
        return {}

    saving = threading.Thread(target=Snapshotter(tmp_path / "s.json", dump, repr).save)
    saving.start()
    while not began.exists():
        time.sleep(0.005)
    listener.close()
    socket.create_server(("127.0.0.1", port)).close()
    assert saving.is_alive()
    saving.join()
