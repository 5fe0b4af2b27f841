"""Every path that is not inference: health, models, metrics. Plain ASGI, the same in both forms of the gateway."""

import hmac
from collections.abc import Awaitable, Callable
from functools import wraps

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.clock import now_ms
from gateway.core.authorise import authorise, find_endpoint, visible_models
from gateway.core.headers import client_ip, token_of
from gateway.core.problems import Rejected
from gateway.core.snapshot import Key
from gateway.exposition import exposition
from gateway.runtime import Gateway

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Handler = Callable[[Request], Awaitable[Response]]


def refusal(problem: Rejected, path: str) -> Response:
    headers = {"retry-after": str(problem.retry_after_s)} if problem.retry_after_s else {}
    return Response(problem.body(path), problem.status, headers, "application/json")


class Side:
    """Handlers of the side paths. All but the health probes want a key; metrics want the gateway's own token."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def routes(self) -> list[Route]:
        return [
            Route("/health", self.live),
            Route("/health/live", self.live),
            Route("/health/ready", self.ready),
            Route("/metrics", self._own(self.metrics)),
            Route("/v1/models", self._guarded(self.models)),
            Route("/v1/models/{name:path}", self._guarded(self.model)),
            Route(
                "/{path:path}",
                self._guarded(self.nothing),
                methods=METHODS,
            ),
        ]

    async def live(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Ready means: has a config and is not going away."""
        snapshot = self.gateway.policy.snapshot
        if snapshot is None or self.gateway.draining:
            return JSONResponse({"status": "draining" if self.gateway.draining else "no config"}, 503)
        return JSONResponse({"status": "ok", "version": snapshot.version})

    async def metrics(self, request: Request) -> Response:
        return PlainTextResponse(exposition(self.gateway), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        snapshot = self.gateway.policy.snapshot
        names = visible_models(snapshot, request.state.key) if snapshot is not None else []
        return JSONResponse({"object": "list", "data": [_model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        snapshot = self.gateway.policy.snapshot
        assert snapshot is not None
        name = request.path_params["name"]
        find_endpoint(snapshot, request.state.key, name)
        return JSONResponse(_model(name))

    async def nothing(self, request: Request) -> Response:
        raise Rejected("not_found")

    def _guarded(self, handler: Handler) -> Handler:
        @wraps(handler)
        async def checked(request: Request) -> Response:
            try:
                request.state.key = self._key(request)
                return await handler(request)
            except Rejected as problem:
                return refusal(problem, request.url.path)

        return checked

    def _own(self, handler: Handler) -> Handler:
        @wraps(handler)
        async def checked(request: Request) -> Response:
            if not hmac.compare_digest(
                token_of(dict(request.scope["headers"])), self.gateway.settings.gateway_token.encode()
            ):
                return refusal(Rejected("invalid_api_key"), request.url.path)
            return await handler(request)

        return checked

    def _key(self, request: Request) -> Key:
        snapshot = self.gateway.policy.snapshot
        if snapshot is None:
            raise Rejected("no_deployment", retry_after_s=1)
        peer = request.client.host if request.client else ""
        forwarded = request.headers.get("x-forwarded-for", "").encode("latin-1")
        address = client_ip(peer, forwarded, self.gateway.trusted_proxies)
        self.gateway.policy.blocking.refuse(snapshot, address, request.headers.get("user-agent", ""), now_ms())
        return authorise(snapshot, token_of(dict(request.scope["headers"])), now_ms(), address)


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "foundry"}
