"""One stack through CloudFormation: create, update or leave alone, and wait."""

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from foundry_local.errors import PlatformError

HASH_TAG = "foundry:template-hash"
LIMIT_S = 120.0
_POLL_S = 0.05
_REASON_CHARS = 400
_CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]


class DeployError(PlatformError):
    """A stack did not reach a usable state; the message names the resources and their reasons."""


def deploy(cloudformation: Any, name: str, template: dict[str, Any], upload: Callable[[str, bytes], str]) -> str:
    """Bring the stack to ``template``; returns ``created``, ``updated`` or ``unchanged``.

    ``upload(key, content)`` puts an object where CloudFormation reads it and returns its URL (a template of more
    than 51,200 bytes cannot be sent in the call).
    """
    body = json.dumps(template, sort_keys=True).encode()
    digest = hashlib.sha256(body).hexdigest()
    current = _describe(cloudformation, name)
    if current is not None and _is_dead(current):
        _call(cloudformation.delete_stack, StackName=name)
        _wait(cloudformation, name)
        current = None
    if current is not None and {"Key": HASH_TAG, "Value": digest} in current.get("Tags", []):
        return "unchanged"
    action = cloudformation.create_stack if current is None else cloudformation.update_stack
    tags = [{"Key": HASH_TAG, "Value": digest}]
    url = upload(f"{name}.template.json", body)
    _call(action, StackName=name, TemplateURL=url, Capabilities=_CAPABILITIES, Tags=tags)
    _check(cloudformation, name, _wait(cloudformation, name))
    return "created" if current is None else "updated"


def outputs(cloudformation: Any, name: str) -> dict[str, str]:
    stack = _describe(cloudformation, name) or {}
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def _call(action: Callable[..., Any], **arguments: Any) -> None:
    try:
        action(**arguments)
    except ClientError as error:
        reason = error.response["Error"]["Message"][:_REASON_CHARS]
        raise DeployError(f"{arguments['StackName']}: {reason}") from error


def _describe(cloudformation: Any, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError:
        return None
    return None if found["StackStatus"] == "DELETE_COMPLETE" else found


def _is_dead(stack: dict[str, Any]) -> bool:
    """A stack that CloudFormation refuses to update because its creation failed."""
    return stack["StackStatus"] in {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"}


def _wait(cloudformation: Any, name: str) -> str:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        stack = _describe(cloudformation, name)
        if stack is None or not stack["StackStatus"].endswith("_IN_PROGRESS"):
            return stack["StackStatus"] if stack else "DELETE_COMPLETE"
        time.sleep(_POLL_S)
    raise DeployError(f"{name}: not finished within {LIMIT_S:.0f} s")


def _check(cloudformation: Any, name: str, status: str) -> None:
    if status in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
        return
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    failed = [event for event in events if event["ResourceStatus"] in {"CREATE_FAILED", "UPDATE_FAILED"}]
    reasons = [f"{e['LogicalResourceId']} ({e['ResourceType']}): {e.get('ResourceStatusReason', '?')}" for e in failed]
    raise DeployError("\n  ".join([f"{name}: {status}", *dict.fromkeys(reasons)]))
