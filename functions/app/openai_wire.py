"""Files and batches as gateways hand them to clients: OpenAI's shapes, with times in seconds (docs/gateway.md)."""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, StringConstraints

from functions.app.wire import Part, Upload

T = TypeVar("T")
MAX_FILE_BYTES = 200 * 1024 * 1024
# A label only, but one that somebody's download may be named after: no folders in it, nothing that cannot be seen.
FileName = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00-\x1f\x7f]{1,255}$")]


class File(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
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
