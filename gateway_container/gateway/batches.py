"""OpenAI's batches API: orders go to the control plane, from which a gateway claims them (batch_runner)."""

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.problems import Rejected
from gateway.runtime import Gateway
from gateway.stored import answer, id_in, key_of, of_project, page_of, told

MAX_ORDER_BYTES = 64 << 10


class Order(msgspec.Struct, frozen=True):
    input_file_id: str
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
    completion_window: Literal["24h"]
    metadata: dict[str, str] | None = None


class Batches:
    """The routes of /v1/batches."""

    def __init__(self, gateway: Gateway) -> None:
        self._control = gateway.control

    def routes(self) -> list[Route]:
        return [
            Route("/v1/batches", self.create, methods=["POST"]),
            Route("/v1/batches", self.page, methods=["GET"]),
            Route("/v1/batches/{batch_id}", self.get, methods=["GET"]),
            Route("/v1/batches/{batch_id}/cancel", self.cancel, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        with told():
            order = _order(await _body(request))
            message = msgspec.structs.asdict(order)
            message |= {"key_id": key_of(request).id, "address": request.state.address}
            return answer(await self._control.ask("POST", of_project(request, "/batches"), message))

    async def page(self, request: Request) -> Response:
        query = page_of(request)
        with told():
            return answer(await self._control.ask("GET", of_project(request, "/batches"), query=query))

    async def get(self, request: Request) -> Response:
        path = of_project(request, f"/batches/{id_in(request, 'batch_id')}")
        with told():
            return answer(await self._control.ask("GET", path))

    async def cancel(self, request: Request) -> Response:
        path = of_project(request, f"/batches/{id_in(request, 'batch_id')}/cancel")
        with told():
            return answer(await self._control.ask("POST", path))


async def _body(request: Request) -> bytes:
    """Raises Rejected."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_ORDER_BYTES:
            raise Rejected("body_too_large")
    return body


def _order(body: bytes) -> Order:
    """Raises Rejected."""
    try:
        return msgspec.json.decode(body, type=Order)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("invalid_request", f"This is no batch: {error}.") from None
