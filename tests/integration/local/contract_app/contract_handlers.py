"""Handlers of the contract app. What they saw goes to the file SEEN, one JSON document per line."""

import json
import os
import threading
import time
from pathlib import Path

_calls: dict[str, int] = {}
_NAMES = ("OWN_NAME", "CONTRACT_TABLE", "AWS_LAMBDA_FUNCTION_NAME")
_lock = threading.Lock()


class OutOfStock(Exception):
    pass


class TransientError(Exception):
    pass


def _see(kind, value):
    with _lock, Path(os.environ["SEEN"]).open("a") as file:
        file.write(json.dumps({kind: value}) + "\n")


def relay(event, context):
    for record in event["Records"]:
        _see("stream", record["dynamodb"]["NewImage"]["pk"]["S"])


def consume(event, context):
    for record in event["Records"]:
        _see("queue", json.loads(record["body"]))
    return {"batchItemFailures": []}


def raises(event, context):
    name = event["run"]
    with _lock:
        _calls[name] = _calls.get(name, 0) + 1
    if event["do"] == "transient" and _calls[name] > 1:
        return {"calls": _calls[name]}
    raise {"out_of_stock": OutOfStock, "transient": TransientError}.get(event["do"], RuntimeError)("no GPU left")


def stuck(event, context):
    time.sleep(3)


def slow(event, context):
    """Answers once the file SEEN.go is there, after 8 s at the latest."""
    _see("slow", "begun")
    ends_s = time.monotonic() + 8
    while not Path(os.environ["SEEN"] + ".go").exists() and time.monotonic() < ends_s:
        time.sleep(0.02)
    return _answer(event, context)


def _answer(event, context):
    authorizer = event["requestContext"].get("authorizer", {})
    body = {
        "function": context.function_name,
        "environment": {
            name: os.environ.get(name) for name in ("OWN_NAME", "CONTRACT_TABLE", "AWS_LAMBDA_FUNCTION_NAME")
        },
        "path": event["rawPath"],
        "parameters": event.get("pathParameters"),
        "claims": authorizer.get("jwt", {}).get("claims"),
        "remaining_ms": context.get_remaining_time_in_millis(),
    }
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}


general = snap = _answer
