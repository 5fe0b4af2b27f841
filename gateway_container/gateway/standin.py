"""A control plane in memory, on loopback: for benchmarks, tests, and for trying out a gateway alone.

``python -m gateway.standin config.json [port]``: the config is a snapshot document, the token ``local-gateway-token``,
the port 8090 where none is named.
"""

import gzip
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.clock import now_ms
from gateway.core import wire
from gateway.core.escrow import Escrow

LIMIT_KINDS = {"requests_per_minute": "requests", "tokens_per_minute": "tokens", "budget_nanos": "money_nanos"}

Part = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Amount = Annotated[int, msgspec.Meta(ge=0, le=10**18)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class LeaseMessage(wire.LeaseRequest, frozen=True):
    """A message within the bounds that the control plane keeps."""

    scope: Annotated[str, msgspec.Meta(pattern=r"^(key|project|endpoint|deployment):[A-Za-z0-9._:/@+-]{1,200}$")]
    kind: Literal["requests", "tokens", "money_nanos", "wake"]
    lease_id: Part
    seq: TimeMs
    spent: Amount
    held: Amount
    ceiling: Amount
    needed: Amount = 0
    window_ms: TimeMs | None = None
    close: bool = False


class LeaseBatch(msgspec.Struct, frozen=True):
    gateway_id: Part
    requests: Annotated[list[LeaseMessage], msgspec.Meta(max_length=100)]


class UploadOrder(msgspec.Struct, frozen=True):
    gateway_id: Part
    batch_id: Part
    rows: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    bytes: Annotated[int, msgspec.Meta(ge=1, le=16 << 20)]
    captured: Part | None = None


class StandIn:
    """The wire contract of docs/gateway.md with everything kept in memory. ``away`` makes it answer 503."""

    def __init__(self, config: Mapping[str, Any], token: str) -> None:
        self.token = token
        self.away = False
        self.batches: dict[str, bytes] = {}
        self.put_config(config)
        self.escrow = Escrow(self.limits)

    def put_config(self, config: Mapping[str, Any] | bytes) -> None:
        self.document = config if isinstance(config, bytes) else msgspec.json.encode(config)
        self.etag = f'"{hashlib.sha256(self.document).hexdigest()[:16]}"'
        if not isinstance(config, bytes):
            self.limits = dict(_limits(config))
            if hasattr(self, "escrow"):
                self.escrow.limits = self.limits

    def rows(self) -> list[dict[str, Any]]:
        """Every metering row that has arrived."""
        lines = (line for packed in self._under("metering/") for line in gzip.decompress(packed).splitlines())
        return [msgspec.json.decode(line) for line in lines]

    def captured(self, project_id: str) -> list[dict[str, Any]]:
        """Every captured record of a project."""
        packed = self._under(f"captures/{project_id}/")
        return [msgspec.json.decode(line) for one in packed for line in gzip.decompress(one).splitlines()]

    def _under(self, prefix: str) -> list[bytes]:
        return [content for name, content in self.batches.items() if name.startswith(prefix)]

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/gateway/config", self._config),
                Route("/gateway/leases", self._leases, methods=["POST"]),
                Route("/gateway/uploads", self._uploads, methods=["POST"]),
                Route("/objects/{name:path}", self._put, methods=["PUT"]),
            ]
        )

    def _refused(self, request: Request) -> Response | None:
        if self.away:
            return Response(status_code=503)
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return Response(status_code=401)
        return None

    async def _config(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304)
        return Response(self.document, headers={"etag": self.etag}, media_type="application/json")

    async def _leases(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        try:
            batch = msgspec.json.decode(await request.body(), type=LeaseBatch)
        except msgspec.MsgspecError:
            return Response(status_code=422)
        reply = self.escrow.handle(batch.requests, now_ms())
        return Response(msgspec.json.encode(reply), media_type="application/json")

    async def _uploads(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        try:
            order = msgspec.json.decode(await request.body(), type=UploadOrder)
        except msgspec.MsgspecError:
            return Response(status_code=422)
        prefix = f"captures/{order.captured}" if order.captured else "metering/all"
        name = f"{prefix}/{order.gateway_id}/{order.batch_id}.jsonl.gz"
        return JSONResponse({"url": f"{request.base_url}objects/{name}", "headers": {"x-rows": str(order.rows)}})

    async def _put(self, request: Request) -> Response:
        if self.away:
            return Response(status_code=503)
        self.batches[request.path_params["name"]] = await request.body()
        return Response(status_code=200)


def _limits(config: Mapping[str, Any]) -> list[tuple[tuple[str, str], int]]:
    found = []
    for kind, name in (("keys", "id"), ("projects", "id"), ("endpoints", "name")):
        for item in config.get(kind, []):
            for limit, value in (item.get("limits") or {}).items():
                if value is not None:
                    found.append(((f"{kind[:-1]}:{item[name]}", LIMIT_KINDS[limit]), value))
    return found


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    stand_in = StandIn(msgspec.json.decode(Path(sys.argv[1]).read_bytes()), "local-gateway-token")
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8090
    uvicorn.run(stand_in.app(), host="127.0.0.1", port=port, log_level="warning")
