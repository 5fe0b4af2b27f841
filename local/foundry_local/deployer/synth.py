"""Synthesizes the CDK app, once for the same inputs."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from foundry_local.errors import PlatformError

STAGE = "local"
LIMIT_S = 180
# Code of functions and layers is not among them: it runs from the checkout, whatever its packages are called.
_INPUTS = ("app.py", "cdk.json", "stacks/**/*.py", "statemachines/*.json")
_STAMP = "inputs.sha256"


class SynthError(PlatformError):
    """The CDK app could not be synthesized; the message holds the end of its output."""


def is_fresh(root: Path, out: Path, context: Mapping[str, str]) -> bool:
    stamp = out / _STAMP
    return stamp.is_file() and stamp.read_text() == _digest(root, context)


def synthesize(root: Path, out: Path, context: Mapping[str, str]) -> bool:
    """Write the assembly of ``root``'s app to ``out``; False when it is there already.

    ``context`` goes to the app over its defaults, which are the stage ``local`` and no bundling.
    """
    if is_fresh(root, out, context):
        return False
    digest = _digest(root, context)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    result = subprocess.run(
        [sys.executable, "app.py"],
        cwd=root, env=_environment(out, context), capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    if result.returncode != 0 or not (out / "manifest.json").is_file():
        tail = (result.stderr or result.stdout).strip().splitlines()[-15:]
        raise SynthError("\n  ".join(["the CDK app could not be synthesized:", *tail]))
    (out / _STAMP).write_text(digest)
    return True


def _environment(out: Path, context: Mapping[str, str]) -> dict[str, str]:
    # Functions run from the checkout, so nothing is bundled; JSII needs the node of this environment.
    full = {"stage": STAGE, "aws:cdk:bundling-stacks": [], **context}
    own = str(Path(sys.executable).parent)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **inherited,
        "PATH": os.pathsep.join([own, os.environ.get("PATH", os.defpath)]),
        "CDK_OUTDIR": str(out),
        "CDK_CONTEXT_JSON": json.dumps(full),
        "CDK_DEFAULT_ACCOUNT": "000000000000",
        "CDK_DEFAULT_REGION": "us-east-1",
        "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
    }


def _digest(root: Path, context: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(context), sort_keys=True).encode())
    for path in sorted(p for pattern in _INPUTS for p in root.glob(pattern)):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
