"""The last events of a stream that a guardrail ends: what the clients of each path understand as "filtered"."""

from typing import Any

import msgspec

Document = dict[str, Any]
# Of the stream's own events, what names the answer; the rest belongs to the event that it came with.
NAMING = ("id", "object", "created", "model", "system_fingerprint")


def ending(path: str, last: Document, response: Document, output_tokens: int) -> bytes:
    """``last``: the stream's last event; ``response``: the object that a Responses stream began with."""
    if path == "/v1/messages":
        return _messages(last, output_tokens)
    if path == "/v1/responses":
        return _responses(last, response)
    return _choices(path, last) + b"data: [DONE]\n\n"


def _choices(path: str, last: Document) -> bytes:
    choices = last.get("choices")
    indexes = {choice["index"] for choice in choices or () if isinstance(choice, dict) and "index" in choice} or {0}
    text: Document = {"text": ""} if path == "/v1/completions" else {"delta": {}}
    ends = [{"index": index, **text, "logprobs": None, "finish_reason": "content_filter"} for index in sorted(indexes)]
    return _event({**{name: last[name] for name in NAMING if name in last}, "choices": ends})


def _messages(last: Document, output_tokens: int) -> bytes:
    stopped = {"type": "content_block_stop", "index": last.get("index", 0)}
    delta = {"stop_reason": "refusal", "stop_sequence": None}
    ended = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": output_tokens}}
    return b"".join(_named(event) for event in (stopped, ended, {"type": "message_stop"}))


def _responses(last: Document, response: Document) -> bytes:
    ended = {**response, "status": "incomplete", "incomplete_details": {"reason": "content_filter"}, "output": []}
    number = last.get("sequence_number")
    following = {"sequence_number": number + 1} if isinstance(number, int) else {}
    return _named({"type": "response.incomplete", **following, "response": ended})


def _named(document: Document) -> bytes:
    return b"event: %b\n%b" % (document["type"].encode(), _event(document))


def _event(document: Document) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(document)
