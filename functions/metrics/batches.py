"""Metering batches in S3, read as what they are: bytes from elsewhere. What cannot be used is put aside, never lost."""

import json
import zlib
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError
from foundry_core.aws import client
from foundry_core.clock import now_ms
from foundry_core.settings import settings
from pydantic import ValidationError

from functions.metrics.schemas import Row

PREFIX = "metering/"
QUARANTINE = "quarantine/"
MAX_OBJECT_BYTES = 16 * 1024 * 1024
MAX_PLAIN_BYTES = 64 * 1024 * 1024  # as rows ten times that, in a function of 1 GiB
_MAX_LINE_BYTES = 64 * 1024
_KEPT_OF_LINE = 4096
_OLDEST_MS = 1_704_067_200_000  # 2024-01-01
_AHEAD_MS = 24 * 3_600_000


class BadBatch(Exception):
    """The object as a whole is of no use."""


@dataclass
class Batch:
    """``token`` names the content: the same bytes under the same key are the same batch."""

    token: str
    rows: list[Row] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)


def read(key: str) -> Batch | None:
    """None when there is no such object any more. Rows that break the schema, or a whole object, are quarantined."""
    try:
        answer = client("s3").get_object(Bucket=settings().metering_bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in {"NoSuchKey", "404"}:
            return None
        raise
    batch = Batch(f"{key}:{answer['ETag'].strip(chr(34))}")
    try:
        if answer["ContentLength"] > MAX_OBJECT_BYTES:
            raise BadBatch(f"larger than {MAX_OBJECT_BYTES:,} bytes")
        parse(decompress(answer["Body"].read()), batch)
    except BadBatch as error:
        batch.bad.append({"line": 0, "reason": str(error), "object": key})
    if batch.bad:
        _put_aside(key, batch)
    return batch


def decompress(data: bytes, limit: int = MAX_PLAIN_BYTES) -> bytes:
    """Gunzip at most ``limit`` bytes, whatever the object claims to hold."""
    plain = bytearray()
    while data:
        member = zlib.decompressobj(wbits=31)
        try:
            plain += member.decompress(data, limit - len(plain) + 1)
        except zlib.error as error:
            raise BadBatch(f"not gzip: {error}") from error
        if len(plain) > limit:
            raise BadBatch(f"larger than {limit:,} bytes when decompressed")
        if not member.eof:
            raise BadBatch("cut short")
        data = member.unused_data
    return bytes(plain)


def parse(plain: bytes, batch: Batch) -> None:
    """Sort the lines into rows and bad ones."""
    for number, line in enumerate(plain.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            batch.rows.append(_row(line))
        except ValueError as error:
            text = line[:_KEPT_OF_LINE].decode("utf-8", "replace")
            batch.bad.append({"line": number, "reason": _reason(error), "text": text})


def _row(line: bytes) -> Row:
    if len(line) > _MAX_LINE_BYTES:
        raise ValueError(f"longer than {_MAX_LINE_BYTES:,} bytes")
    row = Row.model_validate_json(line)
    if not _OLDEST_MS <= row.ts_ms <= now_ms() + _AHEAD_MS:
        raise ValueError("ts_ms: not a time that this gateway can have seen")
    # Several addresses of one deployment are told apart by a number (functions/app/services/endpoints.py).
    row.deployment_id = row.deployment_id.partition("/")[0]
    return row


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _put_aside(key: str, batch: Batch) -> None:
    lines = "\n".join(json.dumps({**one, "batch": batch.token}) for one in batch.bad)
    client("s3").put_object(
        Bucket=settings().metering_bucket, Key=f"{QUARANTINE}{key.removeprefix(PREFIX)}.bad.jsonl",
        Body=lines.encode(), ContentType="application/jsonl",
    )  # fmt: skip
