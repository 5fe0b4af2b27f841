import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from foundry_local.children import Child, ChildError

MODULE = """
import os, pathlib, signal, sys, time
here = pathlib.Path(sys.argv[1])
(here / "pid").write_text(str(os.getpid()))
if sys.argv[2:] == ["stubborn"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True: time.sleep(0.02)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sample_child.py").write_text(MODULE)
    (tmp_path / "broken_child.py").write_text("raise SystemExit('no such thing')")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def wait_for(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def child(tmp_path: Path, environment: dict[str, str], *more: str) -> Child:
    return Child("sample", ["sample_child", str(tmp_path), *more], environment, tmp_path / "child.log")


def test_starts_and_stops(tmp_path: Path, environment: dict[str, str]) -> None:
    sample = child(tmp_path, environment)
    sample.start((tmp_path / "pid").exists)
    assert sample.pid is not None and alive(sample.pid)
    sample.stop()
    assert not alive(sample.pid)


def test_one_that_dies_is_started_again(tmp_path: Path, environment: dict[str, str]) -> None:
    sample = child(tmp_path, environment)
    sample.start(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    first = sample.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: (tmp_path / "pid").read_text() not in ("", str(first)))
    assert sample.pid != first
    sample.stop()


def test_one_that_cannot_start_names_its_log(tmp_path: Path, environment: dict[str, str]) -> None:
    broken = Child("sample", ["broken_child"], environment, tmp_path / "child.log")
    with pytest.raises(ChildError, match=r"the sample did not start: see .*child\.log"):
        broken.start(lambda: False)
    assert "no such thing" in (tmp_path / "child.log").read_text()


PARENT = """
import os, sys, time; from pathlib import Path
from foundry_local.children import Child
here = Path(sys.argv[1])
Child("sample", ["sample_child", str(here)], dict(os.environ), here / "child.log").start((here / "pid").exists)
print("started", flush=True); time.sleep(60)
"""


def test_ends_with_its_parent_even_when_that_is_killed(tmp_path: Path, environment: dict[str, str]) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None and parent.stdout.readline() == "started\n"
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not alive(pid))
