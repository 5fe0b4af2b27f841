"""Who runs a batch: the gateway that claimed it, for as long as it reports. What it reported is where the next one goes
on, so that every line is answered once."""

import logging

from foundry_core.clock import now_ms
from foundry_core.errors import Conflict, NotFound, Unavailable
from foundry_core.ids import new_id

from functions.app import uploads
from functions.app.batch_wire import Claim, Instruction, PartOrder, Report
from functions.app.openai_wire import BatchError
from functions.app.services import files, keys
from functions.app.services.batches import close
from functions.app.store import batches as store
from functions.app.store import files as file_store
from functions.app.store.batches import PartsStored, StoredBatch
from functions.app.store.files import StoredFile
from functions.app.wire import Upload

log = logging.getLogger(__name__)
CLAIM_MS = 60_000
LATE_S = 24 * 3600  # after its window: for a gateway to say of each line that is left that it has expired
MAX_CLAIMS = 10  # of gateways that fell silent, one after the other, before the batch was any further
MAX_PARTS = 2000  # their names fit into an item, and their presigned URLs into an answer
_LOOKED_AT = 5  # per claim: the first may be closed, or taken by another gateway
KEY_GONE = BatchError(code="invalid_api_key", message="The key that made the batch was deleted or has expired.")
INPUT_GONE = BatchError(code="input_file_gone", message="The input file was deleted.", param="input_file_id")

STUCK = BatchError(code="batch_stuck", message=f"{MAX_CLAIMS} gateways in a row began it and got no further.")
TOO_LARGE = BatchError(code="output_too_large", message="It answers more than a batch can hold. Divide the input.")


def any_claimable() -> bool:
    """Also False when that is not known: the config, which says it, does not wait for batches."""
    try:
        return store.any_claimable()
    except Unavailable as error:
        log.warning("gateways do not look for batches: %s", error.detail)
        return False


def claim(claimant: str) -> Claim | None:
    """The open batch that waits longest, if there is one."""
    for candidate in store.claimable(_LOOKED_AT):
        try:
            taken = _take(candidate, claimant)
        except (Conflict, NotFound):
            continue
        if taken is not None:
            return taken
    return None


def _take(candidate: StoredBatch, claimant: str) -> Claim | None:
    def change(stored: StoredBatch) -> tuple[Claim | None, list[StoredFile]]:
        if stored.closed or stored.claim_until_ms > now_ms():
            raise Conflict("Another gateway has it.", code="claim_lost")
        if stored.batch.status == "cancelling":
            return None, close(stored, "cancelled")
        stored.claims += 1
        made = _stopped(stored)
        if stored.closed:
            return None, made
        stored.claim_id, stored.claimed_by = new_id("claim"), claimant
        stored.claim_until_ms = now_ms() + CLAIM_MS
        return _claim(stored), []

    return store.update(candidate.project_id, candidate.batch.id, change)


def _claim(stored: StoredBatch) -> Claim:
    names = ("batch", "project_id", "key_id", "address", "claim_id", "done_lines", "done_bytes", "input_bytes")
    return Claim(**{name: getattr(stored, name) for name in names}, input_url=_input_url(stored))


def _stopped(stored: StoredBatch) -> list[StoredFile]:
    """Closes a batch that cannot go on."""
    if stored.batch.expires_at + LATE_S <= now_ms() // 1000:
        return close(stored, "expired")
    error = _hindrance(stored)
    return close(stored, "failed", error) if error else []


def _hindrance(stored: StoredBatch) -> BatchError | None:
    if stored.claims > MAX_CLAIMS:
        return STUCK
    if max(len(stored.output.names), len(stored.error.names)) >= MAX_PARTS:
        return TOO_LARGE
    if not _has_key(stored):
        return KEY_GONE
    return None if _input_url(stored) else INPUT_GONE


def _has_key(stored: StoredBatch) -> bool:
    try:
        expires_at_ms = keys.get(stored.project_id, stored.key_id).expires_at_ms
    except NotFound:
        return False
    return expires_at_ms is None or expires_at_ms > now_ms()


def _input_url(stored: StoredBatch) -> str:
    """Empty when the input is gone."""
    try:
        file = file_store.load(stored.project_id, stored.batch.input_file_id)
    except NotFound:
        return ""
    return uploads.presign_get(file.keys[0])


def order_part(batch_id: str, request: PartOrder) -> Upload:
    """Where to put answers. The claim is part of the name: who lost it overwrites nothing."""
    stored = store.load(request.project_id, batch_id)
    _refuse_lost(stored, request.claim_id)
    name = part_name(request.kind, request.first_line, request.claim_id)
    key = f"{files.folder_of(request.project_id, batch_id)}/{name}"
    return uploads.presign(key, request.bytes, files.CONTENT_TYPE)


def part_name(kind: str, first_line: int, claim_id: str) -> str:
    return f"{kind}-{first_line:05}-{claim_id[-8:]}.jsonl"


def report(batch_id: str, said: Report) -> Instruction:
    """``Conflict`` with code ``claim_lost`` when the batch is another gateway's by now, or closed."""

    def change(stored: StoredBatch) -> tuple[Instruction, list[StoredFile]]:
        _refuse_lost(stored, said.claim_id)
        apply(stored, said)
        made = _ended(stored, said)
        if not stored.closed:
            made = _stopped(stored)
        go_on = not stored.closed and said.outcome is None and stored.batch.status != "cancelling"
        return Instruction(go_on=go_on, closed=stored.closed, input_url=_input_url(stored)), made

    return store.update(said.project_id, batch_id, change)


def _refuse_lost(stored: StoredBatch, claim_id: str) -> None:
    if stored.closed or stored.claim_id != claim_id:
        raise Conflict("The batch is another gateway's by now, or has ended.", code="claim_lost")


def apply(stored: StoredBatch, said: Report) -> None:
    """How far it is, and the claim for another while. A report that comes late or again changes nothing else."""
    stored.claim_until_ms = now_ms() + CLAIM_MS
    batch = stored.batch
    if said.total is not None and batch.status == "validating":
        batch.status, batch.in_progress_at = "in_progress", now_ms() // 1000
    if said.total is not None:
        batch.request_counts.total = said.total
    if said.done_lines <= stored.done_lines:
        return
    stored.done_lines, stored.done_bytes, stored.claims = said.done_lines, said.done_bytes, 0
    batch.request_counts.completed, batch.request_counts.failed = said.completed, said.failed
    _add(stored.output, part_name("output", said.first_line, said.claim_id), said.output_bytes)
    _add(stored.error, part_name("error", said.first_line, said.claim_id), said.error_bytes)


def _add(parts: PartsStored, name: str, size_bytes: int) -> None:
    if size_bytes:
        parts.names.append(name)
        parts.bytes += size_bytes


def _ended(stored: StoredBatch, said: Report) -> list[StoredFile]:
    if said.outcome == "released":
        stored.claim_id, stored.claim_until_ms, stored.claims = "", now_ms(), 0
        return []
    return close(stored, said.outcome, *said.errors) if said.outcome else []
