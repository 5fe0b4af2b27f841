"""Locks of the Lambda layers and of the gateway's image: run `python requirements/lock_layers.py` after changes.

A layer holds what its extra adds to the base layer, at the versions of requirements/dev.txt, so that the tests run what
Lambda runs. Pins and hashes, no addresses.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
# layer → extra of pyproject.toml
EXTRAS = {"numerics": "sim", "kube": "kube", "metrics": "metrics", "secrets": "secrets"}
IMAGE = {"requirements": "gateway", "build-requirements": "gateway-build"}
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)


def main() -> None:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    base = compile_lock(project["dependencies"])
    write("base", base)
    for layer, extra in EXTRAS.items():
        write(layer, without(compile_lock(project["optional-dependencies"][extra]), pins(base)))
    for name, extra in IMAGE.items():
        lock = compile_lock(project["optional-dependencies"][extra])
        (HERE.parent / "gateway_container" / f"{name}.txt").write_text(lock)


def compile_lock(requirements: list[str]) -> str:
    """Everything that ``requirements`` need on Lambda's platform, pinned and hashed."""
    command = [
        str(Path(sys.executable).parent / "uv"), "pip", "compile", "--quiet", "-", "--no-header", "--no-annotate",
        "--generate-hashes", "--no-emit-index-url", "--constraints", str(HERE / "dev.txt"),
        "--python-version", "3.13", "--python-platform", "aarch64-manylinux_2_28", "--only-binary", ":all:",
    ]  # fmt: skip
    done = subprocess.run(command, input="\n".join(requirements), check=True, capture_output=True, text=True)  # noqa: S603
    return done.stdout


def pins(lock: str) -> set[str]:
    return set(_PIN.findall(lock))


def without(lock: str, names: set[str]) -> str:
    """``lock`` less the packages in ``names``; an entry is a pin and its indented hashes."""
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    return "".join(entry for entry in entries if entry and entry.split("==")[0] not in names)


def write(layer: str, lock: str) -> None:
    (HERE / f"layer-{layer}.txt").write_text(lock)


if __name__ == "__main__":
    main()
