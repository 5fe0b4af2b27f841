"""Batches for gateways: those of a project, for its clients, and whichever is to be run next (docs/gateway.md)."""

from fastapi import APIRouter

from functions.app.batch_wire import ClaimAnswer, Claimant, Instruction, PartOrder, Report
from functions.app.openai_wire import Batch, BatchOrder, Listing
from functions.app.routes.common import Id, Limit
from functions.app.routes.control import Gateway
from functions.app.routes.files import After
from functions.app.services import batch_runs, batches
from functions.app.wire import Part, Upload

router = APIRouter(prefix="/gateway", tags=["gateway"])
_OF_PROJECT = "/projects/{project_id}/batches"


@router.post(_OF_PROJECT, status_code=201)
def create_batch(project_id: Part, body: BatchOrder, _: Gateway) -> Batch:
    """Order a batch; a gateway will claim it."""
    return batches.create(project_id, body)


@router.get(_OF_PROJECT)
def list_batches(project_id: Part, _: Gateway, limit: Limit = 100, after: After = None) -> Listing[Batch]:
    """Batches of the project, newest first."""
    return batches.page_of(project_id, limit, after)


@router.get(f"{_OF_PROJECT}/{{batch_id}}")
def get_batch(project_id: Part, batch_id: Id, _: Gateway) -> Batch:
    """One batch."""
    return batches.get(project_id, batch_id)


@router.post(f"{_OF_PROJECT}/{{batch_id}}/cancel")
def cancel_batch(project_id: Part, batch_id: Id, _: Gateway) -> Batch:
    """Cancel a batch; what is done stays."""
    return batches.cancel(project_id, batch_id)


@router.post("/batches/claim")
def claim_batch(body: Claimant, gateway: Gateway) -> ClaimAnswer:
    """A batch to run, if one waits."""
    return ClaimAnswer(claim=batch_runs.claim(f"{gateway}.{body.gateway_id}"))


@router.post("/batches/{batch_id}/parts")
def order_batch_part(batch_id: Id, body: PartOrder, _: Gateway) -> Upload:
    """A presigned PUT for the answers to some lines."""
    return batch_runs.order_part(batch_id, body)


@router.post("/batches/{batch_id}/report")
def report_batch(batch_id: Id, body: Report, _: Gateway) -> Instruction:
    """How far the batch is; keeps the claim."""
    return batch_runs.report(batch_id, body)
