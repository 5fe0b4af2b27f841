"""Files and batches as gateways hand them to clients: OpenAI's shapes, with times in seconds (docs/gateway.md)."""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, StringConstraints

from functions.app.wire import Part, Upload

T = TypeVar("T")
MAX_FILE_BYTES = 200 * 1024 * 1024
# A label only, but one that somebody's download may be named after: no folders in it, nothing that cannot be seen.
FileName = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00-\x1f\x7f]{1,255}$")]
Purpose = Literal["batch", "batch_output"]


class File(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Purpose
    status: Literal["processed"] = "processed"


class FileOrder(BaseModel):
    key_id: Part = Field(description="The key that the client showed; it must be one of the project.")
    filename: FileName
    bytes: Annotated[int, Field(ge=1, le=MAX_FILE_BYTES, strict=True)]


class NewFile(BaseModel):
    """The file is there once its bytes were put and the gateway has said so."""

    file: File
    upload: Upload


class FileContent(BaseModel):
    """``urls``: presigned GETs whose contents, one after the other, are the file."""

    file: File
    urls: list[str]


Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]  # fmt: skip
Metadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=16),
]


class BatchError(BaseModel):
    code: Annotated[str, StringConstraints(max_length=64)]
    message: Annotated[str, StringConstraints(max_length=500)]
    line: int | None = None
    param: Annotated[str, StringConstraints(max_length=64)] | None = None


class BatchErrors(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(BaseModel):
    total: int = 0
    completed: int = 0
    failed: int = 0


class Batch(BaseModel):
    id: str
    object: Literal["batch"] = "batch"
    endpoint: Endpoint
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: Literal["24h"]
    status: Status = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    metadata: dict[str, str] | None = None


class BatchOrder(BaseModel):
    key_id: Part = Field(description="The key that the client showed: the batch runs with its rights and limits.")
    address: Annotated[str, StringConstraints(max_length=64)] = Field(description="Where the client called from.")
    input_file_id: Part
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: Metadata | None = None


class Deleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class Listing(BaseModel, Generic[T]):
    """A page; the next one is ``after`` its ``last_id``."""

    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool
