"""Runs in a process of its own, with the environment and the credentials of one function: invoke its handlers.

Standard input: JSON list of {"handler", "event"}; the last line of standard output: a list of {"answer"} or {"error"}.
"""

import importlib
import json
import sys
from types import SimpleNamespace
from typing import Any

CONTEXT = SimpleNamespace(
    function_name="f", function_version="1", memory_limit_in_mb=512, aws_request_id="request",
    invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:f",
    get_remaining_time_in_millis=lambda: 30_000,
)  # fmt: skip


def invoke(handler: str, event: Any) -> dict[str, Any]:
    module, name = handler.rsplit(".", 1)
    try:
        return {"answer": getattr(importlib.import_module(module), name)(event, CONTEXT)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


answers = [invoke(**call) for call in json.load(sys.stdin)]
print(json.dumps(answers, default=str))
