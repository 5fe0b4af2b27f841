"""Puts the files that templates refer to where CloudFormation looks for them."""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .assembly import FileAsset
from .localise import CODE_KEY

# A fixed date makes equal directories equal archives.
_DATE = (1980, 1, 1, 0, 0, 0)


def publish(s3: Any, assets: Iterable[FileAsset], used: set[str], bucket: str) -> None:
    """Upload the ``used`` assets, and the package that stands for code in the checkout, to ``bucket``."""
    create_bucket(s3, bucket)
    s3.put_object(Bucket=bucket, Key=CODE_KEY, Body=archive({"README": b"This function runs from the checkout.\n"}))
    for asset in assets:
        if asset.key in used:
            body = archive(_files(asset.source)) if asset.zipped else asset.source.read_bytes()
            s3.put_object(Bucket=bucket, Key=asset.key, Body=body)


def create_bucket(s3: Any, bucket: str) -> None:
    try:
        s3.create_bucket(Bucket=bucket)
    except (s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
        return


def put(s3: Any, bucket: str, key: str, body: bytes) -> str:
    """Upload an object; returns its URL."""
    s3.put_object(Bucket=bucket, Key=key, Body=body)
    return f"{s3.meta.endpoint_url}/{bucket}/{key}"


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in sorted(files.items()):
            package.writestr(zipfile.ZipInfo(name, _DATE), content)
    return buffer.getvalue()


def _files(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
