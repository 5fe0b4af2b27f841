"""A synthesized CDK assembly (``cdk.out``) as plain data: stacks in deployment order, with their file assets."""

import json
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

STACK = "aws:cloudformation:stack"
ASSETS = "cdk:asset-manifest"


@dataclass(frozen=True)
class FileAsset:
    """A file, or a directory to be zipped, that a template refers to as an object in a bucket."""

    source: Path
    zipped: bool
    bucket: str
    key: str


@dataclass(frozen=True)
class Stack:
    name: str
    template: dict[str, Any]
    assets: tuple[FileAsset, ...]


def read(directory: Path) -> list[Stack]:
    """The stacks of an assembly, each after those it depends on; ``FileNotFoundError`` when it is not synthesized."""
    artifacts: dict[str, Any] = json.loads((directory / "manifest.json").read_text())["artifacts"]
    stacks = {name: artifact for name, artifact in artifacts.items() if artifact["type"] == STACK}
    order = TopologicalSorter({name: _needs(artifact, stacks) for name, artifact in stacks.items()})
    return [_stack(directory, name, artifacts) for name in order.static_order()]


def _needs(artifact: dict[str, Any], stacks: dict[str, Any]) -> list[str]:
    return [name for name in artifact.get("dependencies", ()) if name in stacks]


def _stack(directory: Path, name: str, artifacts: dict[str, Any]) -> Stack:
    properties = artifacts[name]["properties"]
    manifests = [
        artifacts[needed]["properties"]["file"]
        for needed in artifacts[name].get("dependencies", ())
        if artifacts[needed]["type"] == ASSETS
    ]
    template = json.loads((directory / properties["templateFile"]).read_text())
    assets = [asset for manifest in manifests for asset in _assets(directory, manifest, properties["templateFile"])]
    return Stack(properties.get("stackName", name), template, tuple(assets))


def _assets(directory: Path, manifest: str, template: str) -> list[FileAsset]:
    """The manifest's file assets; the template itself is one too, which nothing reads from the bucket."""
    files = json.loads((directory / manifest).read_text()).get("files", {}).values()
    return [
        FileAsset(
            source=directory / file["source"]["path"],
            zipped=file["source"].get("packaging") == "zip",
            bucket=destination["bucketName"],
            key=destination["objectKey"],
        )
        for file in files
        if file["source"].get("path") != template
        for destination in file["destinations"].values()
    ]
