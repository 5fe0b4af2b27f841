"""Deploys the synthesized CDK app into the emulator, through CloudFormation and without the CDK CLI."""

import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3

from . import assembly, assets, stacks
from .localise import localise, used_keys
from .stacks import DeployError
from .synth import SynthError, is_fresh, synthesize

__all__ = ["DeployError", "Deployment", "SynthError", "deploy", "is_fresh", "synthesize"]

log = logging.getLogger(__name__)

# What `cdk bootstrap` would have left behind, and templates check for.
_BOOTSTRAP_PARAMETER = "/cdk-bootstrap/hnb659fds/version"
_BOOTSTRAP_VERSION = "30"
CODE_BUCKET = "foundry-local-assets"


@dataclass(frozen=True)
class Deployment:
    """What was deployed: per stack, what happened to it and its outputs."""

    actions: dict[str, str]
    outputs: dict[str, dict[str, str]]


def deploy(directory: Path, endpoint: str) -> Deployment:
    """Deploy the assembly in ``directory``; stacks whose template has not changed are left alone."""
    session = boto3.Session(aws_access_key_id="local", aws_secret_access_key="local", region_name="us-east-1")  # noqa: S106
    s3, cloudformation, ssm = (
        session.client(service, endpoint_url=endpoint) for service in ("s3", "cloudformation", "ssm")
    )
    parts = assembly.read(directory)
    templates = {part.name: localise(part.template, CODE_BUCKET) for part in parts}
    _bootstrap(ssm)
    upload = partial(assets.put, s3, CODE_BUCKET)
    actions = {}
    for part in parts:
        used = used_keys(templates[part.name])
        template = _in_bucket(templates[part.name], part, used)
        assets.publish(s3, part.assets, used, CODE_BUCKET)
        actions[part.name] = stacks.deploy(cloudformation, part.name, template, upload)
        log.info("%s: %s", part.name, actions[part.name])
    return Deployment(actions, {part.name: stacks.outputs(cloudformation, part.name) for part in parts})


def _bootstrap(ssm: Any) -> None:
    ssm.put_parameter(Name=_BOOTSTRAP_PARAMETER, Value=_BOOTSTRAP_VERSION, Type="String", Overwrite=True)


def _in_bucket(template: dict[str, Any], part: assembly.Stack, used: set[str]) -> dict[str, Any]:
    """Every asset lies in one bucket here, whatever name the bootstrap stack would have given its own."""
    text = json.dumps(template)
    for bucket in {asset.bucket for asset in part.assets if asset.key in used}:
        text = text.replace(json.dumps({"Fn::Sub": bucket}), json.dumps(CODE_BUCKET)).replace(
            json.dumps(bucket), json.dumps(CODE_BUCKET)
        )
    renamed: dict[str, Any] = json.loads(text)
    return renamed
