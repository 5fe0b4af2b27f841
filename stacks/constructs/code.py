"""Code assets without Docker: uv installs locked wheels for Lambda's platform, then everything is precompiled."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import jsii
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements"
RUNTIME = lambda_.Runtime.PYTHON_3_13
_PYTHON = "3.13"
_PLATFORM = "aarch64-manylinux_2_28"
_SKIP = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


@dataclass(frozen=True)
class Layer:
    """What a layer carries: a package of ours, the wheels of a lock file."""

    package: str | None = None
    lock: str | None = None


LAYERS = {
    "base": Layer("layers/core/foundry_core", "layer-base.txt"),
    "sim": Layer("layers/sim/foundry_sim"),  # enough for facts of models and devices
    "numerics": Layer(lock="layer-numerics.txt"),
    "kube": Layer(lock="layer-kube.txt"),
    "secrets": Layer(lock="layer-secrets.txt"),
    "metrics": Layer(lock="layer-metrics.txt"),
}


@jsii.implements(cdk.ILocalBundling)
class _Local:
    """Runs a Python function instead of a container."""

    def __init__(self, fill: Callable[[Path], None]) -> None:
        self._fill = fill

    def try_bundle(self, output_dir: str, *, image: cdk.DockerImage, **_: Any) -> bool:
        # jsii passes the options as keywords only when the signature names the required one.
        self._fill(Path(output_dir))
        return True


def domain_code(domain: str) -> lambda_.Code:
    """`functions/<domain>` under the import path that its handlers have everywhere."""
    source = ROOT / "functions" / domain
    return _asset(source, lambda output: copy_domain(domain, output), _digest(source))


def copy_domain(domain: str, output: Path) -> None:
    """Put a domain's code where its handlers expect it."""
    shutil.copytree(ROOT / "functions" / domain, output / "functions" / domain, ignore=_SKIP)
    _compile(output, "/var/task")


class Layers(Construct):
    """The layer versions of one stack, made on first use.

    A layer's ARN changes with every update, and CloudFormation refuses to change an exported value that is in use;
    so each stack has its own versions of the same asset instead of importing them.
    """

    @classmethod
    def of(cls, scope: Construct) -> "Layers":
        stack = cdk.Stack.of(scope)
        found = stack.node.try_find_child("Layers")
        return found if isinstance(found, cls) else cls(stack, "Layers")

    def version(self, name: str) -> lambda_.ILayerVersion:
        found = self.node.try_find_child(name)
        if isinstance(found, lambda_.LayerVersion):
            return found
        return lambda_.LayerVersion(
            self, name, code=_layer_code(name), description=f"Foundry {name}",
            compatible_runtimes=[RUNTIME], compatible_architectures=[lambda_.Architecture.ARM_64],
        )  # fmt: skip


def _layer_code(name: str) -> lambda_.Code:
    layer = LAYERS[name]
    digest = hashlib.sha256(repr(layer).encode())
    if layer.lock:
        digest.update((LOCKS / layer.lock).read_bytes())
    if layer.package:
        digest.update(_digest(ROOT / layer.package).encode())
    source = ROOT / layer.package if layer.package else LOCKS
    return _asset(source, lambda output: fill_layer(layer, output), digest.hexdigest())


def fill_layer(layer: Layer, output: Path) -> None:
    """Put a layer's wheels and our package under `output/python`."""
    target = output / "python"
    if layer.lock:
        _install(LOCKS / layer.lock, target)
        _prune(target)
    if layer.package:
        shutil.copytree(ROOT / layer.package, target / Path(layer.package).name, ignore=_SKIP)
    _compile(target, "/opt/python")


def _install(requirements: Path, target: Path) -> None:
    uv = Path(sys.executable).parent / "uv"
    command = [
        str(uv), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:",
        "--python-platform", _PLATFORM, "--python-version", _PYTHON, "--target", str(target), "-r", str(requirements),
    ]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, "PIP_CONFIG_FILE": os.devnull})  # noqa: S603


def _prune(target: Path) -> None:
    for folder in (target / "bin", *target.glob("*/**/tests")):
        shutil.rmtree(folder, ignore_errors=True)
    for stub in target.glob("**/*.pyi"):
        stub.unlink()


def _compile(folder: Path, seen_as: str) -> None:
    """Ship .pyc files that are never checked against their source: importing them halves the cold start."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" != _PYTHON:
        return  # byte code of another version would only be dead weight
    command = [
        sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
        "-s", str(folder), "-p", seen_as, str(folder),
    ]  # fmt: skip
    subprocess.run(command, check=True)  # noqa: S603


def _asset(source: Path, fill: Callable[[Path], None], digest: str) -> lambda_.Code:
    return lambda_.Code.from_asset(
        str(source),
        asset_hash=digest, asset_hash_type=cdk.AssetHashType.CUSTOM,
        bundling=cdk.BundlingOptions(image=RUNTIME.bundling_image, local=_Local(fill)),
    )  # fmt: skip


def _digest(folder: Path) -> str:
    """Content of the files that get shipped; a stray cache file must not look like a change."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(ROOT)
        if path.is_file() and path.suffix != ".pyc" and not any(part.startswith(".") for part in name.parts):
            digest.update(name.as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
