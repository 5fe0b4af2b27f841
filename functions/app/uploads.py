"""Presigned uploads of metering batches: this adapter is the only file that talks to S3."""

from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from foundry_core.settings import settings

from functions.app.wire import Upload

CONTENT_TYPE = "application/gzip"
_VALID_S = 900


def presign(key: str, size_bytes: int) -> Upload:
    """A PUT of exactly ``size_bytes`` to ``key``."""
    what = {"Bucket": settings().metering_bucket, "Key": key, "ContentType": CONTENT_TYPE, "ContentLength": size_bytes}
    url = _s3().generate_presigned_url("put_object", Params=what, ExpiresIn=_VALID_S)
    return Upload(url=url, headers={"content-type": CONTENT_TYPE, "content-length": str(size_bytes)})


@cache
def _s3() -> Any:
    return boto3.client("s3", config=Config(signature_version="s3v4"))  # what KMS and newer regions ask for
