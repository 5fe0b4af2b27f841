"""Presigned URLs for what gateways put into object storage and get from it: this adapter is the only file that talks
to S3."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from foundry_core.settings import settings

from functions.app.wire import Upload

CONTENT_TYPE = "application/gzip"
_VALID_S = 900
_DELETED_AT_A_TIME = 1000  # S3's own limit


def presign(key: str, size_bytes: int, content_type: str = CONTENT_TYPE) -> Upload:
    """A PUT of exactly ``size_bytes`` to ``key``."""
    what = {"Bucket": settings().metering_bucket, "Key": key, "ContentType": content_type, "ContentLength": size_bytes}
    url = _s3().generate_presigned_url("put_object", Params=what, ExpiresIn=_VALID_S)
    return Upload(url=url, headers={"content-type": content_type, "content-length": str(size_bytes)})


def presign_get(key: str) -> str:
    """A GET of ``key``, or of a range of it."""
    what = {"Bucket": settings().metering_bucket, "Key": key}
    return str(_s3().generate_presigned_url("get_object", Params=what, ExpiresIn=_VALID_S))


def delete(keys: Sequence[str]) -> None:
    """Keys that are gone already do not matter."""
    for start in range(0, len(keys), _DELETED_AT_A_TIME):
        objects = [{"Key": key} for key in keys[start : start + _DELETED_AT_A_TIME]]
        _s3().delete_objects(Bucket=settings().metering_bucket, Delete={"Objects": objects, "Quiet": True})


@cache
def _s3() -> Any:
    return boto3.client("s3", config=Config(signature_version="s3v4"))  # what KMS and newer regions ask for
