"""The output of a batch: a line for each request, in the file of answers or in that of errors."""

from typing import Final

import msgspec

from gateway.batch_line import Answer

EXPIRED: Final = {"code": "batch_expired", "message": "The batch expired before this request was answered."}


class Result(msgspec.Struct, frozen=True):
    line: bytes
    failed: bool


def answered(batch_id: str, number: int, custom_id: str, answer: Answer) -> Result:
    body = msgspec.Raw(answer.body)
    response = {"status_code": answer.status, "request_id": answer.request_id, "body": body}
    return _result(batch_id, number, custom_id, response, None, answer.failed)


def expired(batch_id: str, number: int, custom_id: str) -> Result:
    return _result(batch_id, number, custom_id, None, EXPIRED, True)


def _result(
    batch_id: str, number: int, custom_id: str, response: object, error: object, failed: bool
) -> Result:  # fmt: skip
    id_ = f"batch_req_{batch_id.removeprefix('batch_')}_{number}"
    line = {"id": id_, "custom_id": custom_id, "response": response, "error": error}
    return Result(msgspec.json.encode(line) + b"\n", failed)
