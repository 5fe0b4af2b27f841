"""What a template says about code, said again for a machine that runs the code from its checkout.

Functions whose handler can be imported here need no package: their code becomes one constant object, so that a
change of code neither is zipped nor updates a stack. Layers likewise: what they hold is installed. Nothing else of
the template changes.
"""

import copy
import importlib.util
from functools import cache
from typing import Any

CODE_KEY = "runs-from-the-checkout.zip"


def localise(template: dict[str, Any], bucket: str) -> dict[str, Any]:
    """The template with the packages of importable functions and of layers replaced by the object ``CODE_KEY``."""
    local = copy.deepcopy(template)
    for resource in local["Resources"].values():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Lambda::Function" and _is_ours(properties):
            properties["Code"] = {"S3Bucket": bucket, "S3Key": CODE_KEY}
        elif resource["Type"] == "AWS::Lambda::LayerVersion":
            properties["Content"] = {"S3Bucket": bucket, "S3Key": CODE_KEY}
        _forget_asset(resource)
    return local


def used_keys(template: dict[str, Any]) -> set[str]:
    """Object keys that the (localised) template still refers to."""
    return set(_strings(template))


def _is_ours(function: dict[str, Any]) -> bool:
    handler = function.get("Handler")
    return isinstance(handler, str) and "S3Key" in function.get("Code", {}) and _importable(handler.partition(".")[0])


@cache
def _importable(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _forget_asset(resource: dict[str, Any]) -> None:
    # Names of staged directories change with every change of code.
    for name in ("aws:asset:path", "aws:asset:dockerfile-path"):
        resource.get("Metadata", {}).pop(name, None)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for child in children for text in _strings(child)]
