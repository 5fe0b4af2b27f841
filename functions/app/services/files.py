"""Files for batches: records here, bytes in object storage, which gateways reach by presigned URLs."""

from typing import TypeVar

from foundry_core.clock import now_ms
from foundry_core.errors import Conflict
from foundry_core.ids import new_id

from functions.app import uploads
from functions.app.openai_wire import Batch, Deleted, File, FileContent, FileOrder, Listing, NewFile, Purpose
from functions.app.services import keys
from functions.app.store import files as store
from functions.app.store.files import StoredFile

Listed = TypeVar("Listed", File, Batch)
KEPT_S = 30 * 24 * 3600  # the bucket keeps the bytes a little longer (stacks/metrics.py)
MAX_FILES = 5_000  # of a project: a key must not be able to fill a bucket without end
CONTENT_TYPE = "application/jsonl"
_INPUT = "input.jsonl"


def folder_of(project_id: str, subject_id: str) -> str:
    """Where the bytes of a file or a batch are; nothing of another project is below it."""
    return f"files/{project_id}/{subject_id}"


def order(project_id: str, request: FileOrder) -> NewFile:
    """A new file whose bytes are still to come. ``NotFound`` when the key is gone, ``Conflict`` with code
    ``too_many_files``."""
    keys.get(project_id, request.key_id)
    if store.count(project_id) >= MAX_FILES:
        raise Conflict(f"The project has {MAX_FILES:,} files already. Delete some, or wait until they expire.",
                       code="too_many_files")  # fmt: skip
    file = new_file(request.filename, request.bytes, "batch")
    stored = StoredFile(project_id, file, folder_of(project_id, file.id), (_INPUT,), pending=True)
    store.insert(stored)
    return NewFile(file=file, upload=uploads.presign(stored.keys[0], request.bytes, CONTENT_TYPE))


def new_file(filename: str, size_bytes: int, purpose: Purpose) -> File:
    created_at = now_ms() // 1000
    return File(
        id=new_id("file"), bytes=size_bytes, created_at=created_at, expires_at=created_at + KEPT_S, filename=filename,
        purpose=purpose,
    )  # fmt: skip


def arrived(project_id: str, file_id: str) -> File:
    return store.arrived(project_id, file_id).file


def get(project_id: str, file_id: str) -> File:
    return store.load(project_id, file_id).file


def page_of(project_id: str, limit: int, after: str | None, oldest_first: bool, purpose: str | None) -> Listing[File]:
    stored, more = store.page_of(project_id, limit, after, oldest_first, purpose)
    return listing([one.file for one in stored], more)


def listing(data: list[Listed], more: bool) -> Listing[Listed]:
    ids = [one.id for one in data]
    return Listing(data=data, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=more)


def content(project_id: str, file_id: str) -> FileContent:
    stored = store.load(project_id, file_id)
    return FileContent(file=stored.file, urls=[uploads.presign_get(key) for key in stored.keys])


def delete(project_id: str, file_id: str) -> Deleted:
    """Record first: bytes without one are nobody's, and go with the bucket's own rule."""
    stored = store.load(project_id, file_id)
    store.delete(project_id, file_id)
    uploads.delete(stored.keys)
    return Deleted(id=file_id)
