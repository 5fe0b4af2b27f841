"""Where a gateway puts its metering batches."""

from functions.app import uploads
from functions.app.wire import Upload, UploadRequest

PREFIX = "metering/all"


def allow(gateway: str, request: UploadRequest) -> Upload:
    """``gateway`` is the registered gateway: no other can write below its prefix."""
    key = f"{PREFIX}/{gateway}.{request.gateway_id}/{request.batch_id}.jsonl.gz"
    return uploads.presign(key, request.bytes)
