"""The two fields that policy needs of a multipart/form-data body (audio, images); the rest is never looked at."""

import re

from gateway.core.problems import Rejected
from gateway.core.shapes import Call

BOUNDARY = re.compile(rb'multipart/form-data\s*;.*?boundary=(?:"([^"]{1,70})"|([^;\s]{1,70}))', re.I | re.S)
NAME = re.compile(rb'content-disposition:\s*form-data\s*;[^\r\n]*?\bname="?([A-Za-z_]+)"?', re.I)
MAX_VALUE_BYTES = 1024


class Form:
    """Where the model's name is in a body, so that another one can be put there."""

    def __init__(self, call: Call, start: int, end: int) -> None:
        self.call = call
        self.start = start
        self.end = end

    def with_model(self, body: bytes, model: str) -> bytes:
        return body[: self.start] + model.encode() + body[self.end :]


def is_form(content_type: bytes) -> bool:
    return content_type[:19].lower() == b"multipart/form-data"


def parse(content_type: bytes, body: bytes) -> Form:
    """Find "model" and "stream". Raises Rejected when there is no model."""
    found = BOUNDARY.match(content_type)
    if found is None:
        raise Rejected("invalid_request", "The multipart body has no boundary.")
    spans = _fields(body, b"--" + (found[1] or found[2]))
    if "model" not in spans:
        raise Rejected("invalid_request", "The form has no field 'model'.", param="model")
    start, end = spans["model"]
    stream = body[slice(*spans["stream"])].lower() == b"true" if "stream" in spans else None
    try:
        return Form(Call(model=body[start:end].decode(), stream=stream), start, end)
    except UnicodeDecodeError:
        raise Rejected("invalid_request", "The form's model is not UTF-8.", param="model") from None


def _fields(body: bytes, delimiter: bytes) -> dict[str, tuple[int, int]]:
    spans: dict[str, tuple[int, int]] = {}
    at = body.find(delimiter)
    while at >= 0:
        head_end = body.find(b"\r\n\r\n", at, at + 8192)
        following = body.find(b"\r\n" + delimiter, at + len(delimiter))
        if head_end < 0 or following < 0:
            break
        name = NAME.search(body, at, head_end)
        if name and b"filename" not in body[at:head_end].lower() and following - head_end - 4 <= MAX_VALUE_BYTES:
            spans[name[1].decode("ascii")] = (head_end + 4, following)
        at = following + 2
    return spans
