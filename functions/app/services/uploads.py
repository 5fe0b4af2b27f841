"""Where a gateway puts its metering batches."""

from functions.app import uploads
from functions.app.wire import Upload, UploadRequest

METERING = "metering/all"
CAPTURES = "captures"


def allow(gateway: str, request: UploadRequest) -> Upload:
    """``gateway`` is the registered gateway: no other can write below its prefix."""
    prefix = METERING if request.captured is None else f"{CAPTURES}/{request.captured}"
    key = f"{prefix}/{gateway}.{request.gateway_id}/{request.batch_id}.jsonl.gz"
    return uploads.presign(key, request.bytes)
