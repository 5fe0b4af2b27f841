"""The image ships the hot path compiled: it must pass what the interpreted one passes."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SUITES = (
    *("test_conformance.py", "test_forms.py", "test_hostile.py", "test_leaving.py", "test_observability.py"),
    *("test_stages.py", "test_stand_in.py", "test_turns.py"),
)
COMPILER = (sysconfig.get_config_var("CC") or "cc").split()[0]
# The same program, in less of the suite's time.
QUICK = {"MYPYC_OPT_LEVEL": "0", "MYPYC_DEBUG_LEVEL": "0"}
SOURCES = ("compile.py", "gateway/**/*.py")


@pytest.fixture(scope="session")
def compiled() -> Path:
    """The folder that holds the compiled package: made once per change of what it is made from."""
    home = ROOT / ".foundry" / "test-compiled"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / fingerprint()).exists():
            for old in home.glob("*/"):
                shutil.rmtree(old)
            run("gateway_container/compile.py", str(home / "draft"))
            (home / "draft").rename(home / fingerprint())
    return home / fingerprint()


def fingerprint() -> str:
    """A hash over the sources, the compiler of Python and the interpreter."""
    container = ROOT / "gateway_container"
    files = sorted(file for pattern in SOURCES for file in container.glob(pattern))
    parts = [version("mypy"), sys.version, *(f"{file}\n{file.read_text()}" for file in files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="no C compiler: the compiled form is not tested here")
def test_the_compiled_form_passes_the_same_suites(compiled: Path) -> None:
    path = os.pathsep.join([str(compiled), os.environ.get("PYTHONPATH", "")])
    where = run("-c", "import gateway.flow; print(gateway.flow.__file__)", path=path)
    assert Path(where.strip()).suffix == sysconfig.get_config_var("EXT_SUFFIX")[-3:]
    suites = [f"tests/integration/gateway/{suite}" for suite in SUITES]
    # The reference form is not compiled; what it shares with the hot path, the hot path's cases reach.
    options = ("-p", "no:cacheprovider", "-p", "no:xdist", "-k", "not reference")
    report = run("-m", "pytest", *options, *suites, path=path)
    assert " passed" in report or report.rstrip().endswith("[100%]")


def run(*arguments: str, path: str | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= QUICK
    if path is not None:
        environment["PYTHONPATH"] = path
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout
