"""Batches as clients know them: made, looked at, cancelled. Gateways run them (batch_runs)."""

from foundry_core.clock import now_ms
from foundry_core.errors import Conflict, Invalid
from foundry_core.ids import new_id

from functions.app.openai_wire import Batch, BatchError, BatchErrors, BatchOrder, Listing, Status
from functions.app.services import files, keys
from functions.app.store import batches as store
from functions.app.store.batches import PartsStored, StoredBatch
from functions.app.store.files import StoredFile

WINDOW_S = 24 * 3600
MAX_OPEN = 100  # of a project: they take turns with those of others


def create(project_id: str, request: BatchOrder) -> Batch:
    """``NotFound`` when key or file are gone, ``Invalid`` when the file is no input of a batch, ``Conflict`` with code
    ``too_many_batches``."""
    keys.get(project_id, request.key_id)
    file = files.get(project_id, request.input_file_id)
    if file.purpose != "batch":
        raise Invalid("The file is what a batch made.", next_action="Name a file that was uploaded for batches.")
    if store.open_ones(project_id) >= MAX_OPEN:
        raise Conflict(f"The project has {MAX_OPEN} batches that have not ended. Wait for one, or cancel one.",
                       code="too_many_batches")  # fmt: skip
    created_at = now_ms() // 1000
    batch = Batch(
        id=new_id("batch"), created_at=created_at, expires_at=created_at + WINDOW_S,
        **request.model_dump(exclude={"key_id", "address"}),
    )  # fmt: skip
    stored = StoredBatch(
        batch=batch, project_id=project_id, key_id=request.key_id, address=request.address, input_bytes=file.bytes
    )
    store.insert(stored, created_at + files.KEPT_S)
    return batch


def get(project_id: str, batch_id: str) -> Batch:
    return store.load(project_id, batch_id).batch


def page_of(project_id: str, limit: int, after: str | None) -> Listing[Batch]:
    stored, more = store.page_of(project_id, limit, after)
    return files.listing([one.batch for one in stored], more)


def cancel(project_id: str, batch_id: str) -> Batch:
    """At once where no gateway runs it, else as soon as the one that does reports. ``Conflict`` when it has ended."""

    def change(stored: StoredBatch) -> tuple[Batch, list[StoredFile]]:
        batch, made = stored.batch, list[StoredFile]()
        if stored.closed:
            raise Conflict(f"The batch is {batch.status} already.", code="batch_closed")
        if batch.status != "cancelling":
            batch.status, batch.cancelling_at = "cancelling", now_ms() // 1000
        if stored.claim_until_ms <= now_ms():
            made = close(stored, "cancelled")
        return batch, made

    return store.update(project_id, batch_id, change)


def close(stored: StoredBatch, status: Status, *errors: BatchError) -> list[StoredFile]:
    """The end of a batch. Returns the files that hold what was done until then."""
    batch, at = stored.batch, now_ms() // 1000
    stored.closed, stored.claim_id = True, ""
    batch.status = status
    if status in ("completed", "expired"):
        batch.finalizing_at = at
    setattr(batch, f"{status}_at", at)
    if errors:
        batch.errors = BatchErrors(data=list(errors))
    output, error = _file(stored, stored.output, "output"), _file(stored, stored.error, "error")
    batch.output_file_id = output.file.id if output else None
    batch.error_file_id = error.file.id if error else None
    return [file for file in (output, error) if file is not None]


def _file(stored: StoredBatch, parts: PartsStored, kind: str) -> StoredFile | None:
    if not parts.names:
        return None
    file = files.new_file(f"{stored.batch.id}_{kind}.jsonl", parts.bytes, "batch_output")
    return StoredFile(stored.project_id, file, files.folder_of(stored.project_id, stored.batch.id), tuple(parts.names))
