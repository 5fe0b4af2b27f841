"""What gateways ask of the control plane, with their own token instead of a person's (docs/gateway.md)."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from foundry_core.http import etag, not_modified

from functions.app.routes.common import UNCHANGED
from functions.app.services import batch_runs, credentials, gateways, leases, snapshot, uploads
from functions.app.wire import ConfigDocument, LeaseAnswer, LeaseBatch, Upload, UploadRequest

router = APIRouter(prefix="/gateway", tags=["gateway"])
BATCHES_HEADER = "x-foundry-batches"


def _gateway(request: Request) -> str:
    return gateways.authenticate(request.headers.get("authorization", ""))


Gateway = Annotated[str, Depends(_gateway)]


@router.get("/config", responses=UNCHANGED, response_model=ConfigDocument)
def get_config(request: Request, response: Response, _: Gateway) -> Response:
    """The config snapshot, with the credentials that its endpoints use, sealed for the gateway; poll with
    If-None-Match. The header x-foundry-batches says whether a batch waits to be claimed."""
    version = snapshot.version()
    headers = {BATCHES_HEADER: "waiting" if batch_runs.any_claimable() else "none"}
    if not_modified(request, response, etag(f"{version.number}.{version.stamp}")):
        return Response(status_code=304, headers=headers | {"etag": response.headers["etag"]})
    current = snapshot.of_version(version)
    sealed = credentials.sealed_for(gateways.token_of(request.headers["authorization"]), current)
    document = snapshot.with_credentials(current.document, sealed)
    if all(entry.sealed for entry in sealed):  # else it is to be asked for again
        headers["etag"] = response.headers["etag"]
    return Response(document, media_type="application/json", headers=headers)


@router.post("/leases")
def post_leases(body: LeaseBatch, gateway: Gateway) -> LeaseAnswer:
    """Open, change and close leases. A message may be repeated and means the same."""
    return LeaseAnswer(leases=leases.lease(gateway, body.requests))


@router.post("/uploads")
def post_upload(body: UploadRequest, gateway: Gateway) -> Upload:
    """A presigned PUT for one metering batch; the same batch gets the same place."""
    return uploads.allow(gateway, body)
