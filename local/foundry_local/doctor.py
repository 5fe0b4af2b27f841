"""Whether this machine can run the platform: each check says what it found and the command that mends it."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .pins import EMULATOR_VERSION
from .serve import HOST
from .state import DEFAULT_PORT, DEFAULT_STATE, StateDir

INSTALL = "make install"
PYTHONS = ((3, 11), (3, 13))
DISK_BYTES = 1_000_000_000
MEMORY_BYTES = 1_000_000_000
PACKAGES = (
    "aws_cdk", "aws_lambda_powertools", "boto3", "cdk_nag", "chdb", "clickhouse_connect", "fastapi", "httpcore",
    "httptools", "httpx", "hypercorn", "kubernetes", "mangum", "ministack", "msgspec", "numpy", "psutil", "pydantic",
    "pydantic_settings", "pynamodb", "rich", "typer", "uvicorn", "uvloop", "xgboost", "yaml",
)  # fmt: skip
_PROBE_S = 60


@dataclass(frozen=True)
class Check:
    """One finding; ``mend`` is the exact command that helps, None when there is nothing to mend."""

    name: str
    ok: bool
    detail: str
    mend: str | None = None


def check(state: Path = DEFAULT_STATE, root: Path | None = None) -> list[Check]:
    """All checks, in the order in which they matter. None of them changes anything."""
    directory, checkout = StateDir(state), (root or Path.cwd()).absolute()
    checks: dict[str, Callable[[], Check]] = {
        "python": python,
        "packages": packages,
        "emulator": emulator,
        "node": node,
        "chdb": chdb,
        "memory": memory,
        "disk": lambda: disk(directory),
        "state": lambda: writable(directory),
        "ports": lambda: ports(directory),
        "checkout": lambda: checkout_of(checkout),
        "assembly": lambda: assembly(directory, checkout),
    }
    return [_run(name, one) for name, one in checks.items()]


def _run(name: str, one: Callable[[], Check]) -> Check:
    try:
        return one()
    except ImportError as error:
        return Check(name, False, f"cannot be checked: {error}", INSTALL)


def python() -> Check:
    found = sys.version_info[:2]
    (low, high), text = PYTHONS, ".".join(map(str, sys.version_info[:3]))
    wanted = f"{low[0]}.{low[1]} to {high[0]}.{high[1]}"
    if low <= found <= high:
        return Check("python", True, f"{text} ({sys.executable})")
    return Check("python", False, f"{text}; {wanted} is needed", "rm -rf .venv && make install PYTHON=python3.13")


def packages() -> Check:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return Check("packages", False, f"not installed: {', '.join(missing)}", INSTALL)
    return Check("packages", True, f"{len(PACKAGES)} importable")


def emulator() -> Check:
    try:
        found = version("ministack")
    except PackageNotFoundError:
        return Check("emulator", False, "ministack is not installed", INSTALL)
    if found != EMULATOR_VERSION:
        return Check("emulator", False, f"ministack {found}; exactly {EMULATOR_VERSION} is needed", INSTALL)
    return Check("emulator", True, f"ministack {found}")


def node() -> Check:
    """CDK constructs run in Node, which the virtual environment brings along."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = shutil.which("node", path=path)
    if found is None:
        return Check("node", False, "no node beside this python or on PATH", INSTALL)
    answer = _output([found, "--version"])
    return Check("node", answer is not None, f"{answer or 'does not run'} ({found})", None if answer else INSTALL)


def chdb() -> Check:
    """Started in a process of its own: a wheel for another machine would take ours down with it."""
    answer = _output([sys.executable, "-c", "import chdb; print(chdb.query('SELECT version()', 'CSV'))"])
    if answer is None:
        return Check("chdb", False, "the embedded ClickHouse does not start", f"{INSTALL} && .venv/bin/foundry doctor")
    return Check("chdb", True, f"ClickHouse {answer.strip().strip(chr(34))}")


def memory() -> Check:
    import psutil  # type: ignore[import-untyped]

    free = psutil.virtual_memory().available
    ok = free >= MEMORY_BYTES
    return Check("memory", ok, f"{_gb(free)} available", None if ok else "ps aux --sort=-rss | head")


def disk(state: StateDir) -> Check:
    place = next(path for path in (state.root, *state.root.parents) if path.exists())
    free = shutil.disk_usage(place).free
    ok = free >= DISK_BYTES
    return Check("disk", ok, f"{_gb(free)} free at {place}", None if ok else f"df -h {place}")


def writable(state: StateDir) -> Check:
    place = next(path for path in (state.root, *state.root.parents) if path.exists())
    if os.access(place, os.W_OK | os.X_OK):
        return Check("state", True, str(state.root))
    return Check("state", False, f"{place} is not writable", f"sudo chown -R $(id -u) {place}")


def ports(state: StateDir) -> Check:
    if state.owner() is not None:
        return Check("ports", True, "held by the platform that runs here")
    wanted = state.known_ports() or {"front": DEFAULT_PORT}
    taken = [f"{port} ({name})" for name, port in wanted.items() if _is_taken(port)]
    if not taken:
        return Check("ports", True, f"{', '.join(str(port) for port in wanted.values())} free")
    mend = "foundry up --port 0" if taken == [f"{wanted['front']} (front)"] else f"lsof -i :{taken[0].split()[0]}"
    return Check("ports", False, f"in use: {', '.join(taken)}", mend)


def checkout_of(root: Path) -> Check:
    missing = [name for name in ("app.py", "stacks", "functions", "statemachines") if not (root / name).exists()]
    if missing:
        return Check("checkout", False, f"{root} has no {', '.join(missing)}", "cd into the checkout")
    return Check("checkout", True, str(root))


def assembly(state: StateDir, root: Path) -> Check:
    from .deployer import is_fresh

    if is_fresh(root, state.assembly, state.context):
        return Check("assembly", True, f"{state.assembly} is up to date")
    return Check("assembly", True, "the next start synthesizes the stacks first (10 to 20 s)", "foundry up")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _output(command: list[str]) -> str | None:
    try:
        result = subprocess.run(  # noqa: S603 (our own interpreter and node)
            command, capture_output=True, text=True, timeout=_PROBE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
