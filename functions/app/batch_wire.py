"""How gateways run batches: one claims a batch, says how far it is, and loses it when it falls silent
(docs/gateway.md)."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from functions.app.openai_wire import Batch, BatchError
from functions.app.wire import Part

MAX_LINES = 50_000
MAX_ERRORS = 100
MAX_PART_BYTES = 1024 * 1024 * 1024
PartKind = Literal["output", "error"]
Outcome = Literal["completed", "failed", "expired", "cancelled", "released"]
Line = Annotated[int, Field(ge=0, le=MAX_LINES, strict=True)]
Size = Annotated[int, Field(ge=0, le=MAX_PART_BYTES, strict=True)]
Offset = Annotated[int, Field(ge=0, lt=2**53, strict=True)]


class Claimant(BaseModel):
    gateway_id: Part = Field(description="Which process asks; for people who look for it.")


class Claim(BaseModel):
    """A batch to run. It is this gateway's for as long as it reports at least once a minute."""

    batch: Batch
    project_id: str
    key_id: str
    address: str
    claim_id: str
    done_lines: int = Field(description="So many lines of the input have their answers stored.")
    done_bytes: int = Field(description="So many bytes of the input those are.")
    input_bytes: int
    input_url: str


class ClaimAnswer(BaseModel):
    claim: Claim | None


class PartOrder(BaseModel):
    project_id: Part
    claim_id: Part
    kind: PartKind
    first_line: Line = Field(description="Index of the first line of the input that it answers.")
    bytes: Annotated[int, Field(ge=1, le=MAX_PART_BYTES, strict=True)]


class Report(BaseModel):
    """All numbers are totals since the batch began, so a report may be repeated; the parts of ``first_line`` are stored
    already. ``outcome``: the gateway is done with the batch, ``released``: another one may go on."""

    project_id: Part
    claim_id: Part
    total: Line | None = Field(None, description="How many lines the input has, once it is known to be sound.")
    first_line: Line = 0
    output_bytes: Size = 0
    error_bytes: Size = 0
    done_lines: Line = 0
    done_bytes: Offset = 0
    completed: Line = 0
    failed: Line = 0
    outcome: Outcome | None = None
    errors: Annotated[list[BatchError], Field(max_length=MAX_ERRORS)] = []


class Instruction(BaseModel):
    """``go_on`` false: store what is done and report ``cancelled``; or, when the batch is closed, nothing at all."""

    go_on: bool
    closed: bool
    input_url: str
