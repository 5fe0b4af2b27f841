"""The image ships the hot path compiled: it must pass what the interpreted one passes."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SUITES = ("test_conformance.py", "test_forms.py", "test_hostile.py", "test_observability.py", "test_stages.py")
COMPILER = (sysconfig.get_config_var("CC") or "cc").split()[0]


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="no C compiler: the compiled form is not tested here")
def test_the_compiled_form_passes_the_same_suites(tmp_path: Path) -> None:
    compiled = tmp_path / "compiled"
    run("gateway_container/compile.py", str(compiled))
    path = os.pathsep.join([str(compiled), os.environ.get("PYTHONPATH", "")])
    where = run("-c", "import gateway.flow; print(gateway.flow.__file__)", path=path)
    assert Path(where.strip()).suffix == sysconfig.get_config_var("EXT_SUFFIX")[-3:]
    suites = [f"tests/integration/gateway/{suite}" for suite in SUITES]
    report = run("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *suites, path=path)
    assert " passed" in report or report.rstrip().endswith("[100%]")


def run(*arguments: str, path: str | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["MYPYC_OPT_LEVEL"] = "0"  # the same program, in less of the suite's time
    if path is not None:
        environment["PYTHONPATH"] = path
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout
