"""Every path that is not inference: health, models, metrics, files, batches. Plain ASGI, the same in both forms."""

import hmac

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.batches import Batches
from gateway.clock import now_ms
from gateway.core.authorise import authorise, find_endpoint, visible_models
from gateway.core.call import INFERENCE_PATHS
from gateway.core.headers import client_ip, token_of
from gateway.core.problems import Rejected
from gateway.core.snapshot import Key
from gateway.exposition import exposition
from gateway.files import Files
from gateway.runtime import Gateway

PROBES = frozenset({"/health", "/health/live", "/health/ready"})
METRICS = "/metrics"
NOT_BUILT = "/v1/uploads"
NO_UPLOADS = "This gateway takes no files in parts. Send the whole file to POST /v1/files."


class Side:
    """ASGI application of the side paths. All but the health probes obey the blocking rules and want a key; metrics
    want the gateway's own token. What has no route is checked first, too."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._app = Starlette(
            routes=[
                Route("/health", self.live),
                Route("/health/live", self.live),
                Route("/health/ready", self.ready),
                Route(METRICS, self.metrics),
                Route("/v1/models", self.models),
                Route("/v1/models/{name:path}", self.model),
                *Files(gateway).routes(),
                *Batches(gateway).routes(),
            ],
            exception_handlers={Rejected: _refused, 404: _not_found, 405: _not_allowed},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        try:
            if scope["path"] not in PROBES:
                self._check(request)
        except Rejected as problem:
            await refusal(problem, scope["path"])(scope, receive, send)
        else:
            await self._app(scope, receive, send)

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

    def _check(self, request: Request) -> None:
        """Raises Rejected."""
        snapshot, named = self.gateway.policy.snapshot, dict(request.scope["headers"])
        peer = request.client.host if request.client else ""
        address = client_ip(peer, named.get(b"x-forwarded-for", b""), self.gateway.trusted_proxies)
        if snapshot is not None:
            agent = named.get(b"user-agent", b"").decode("latin-1")
            self.gateway.policy.blocking.refuse(snapshot, address, agent, now_ms())
        token = token_of(named)
        if request.scope["path"] != METRICS:
            request.state.key, request.state.address = self._key(token, address), address
        elif not hmac.compare_digest(token, self.gateway.settings.gateway_token.encode()):
            raise Rejected("invalid_api_key")

    def _key(self, token: bytes, address: str) -> Key:
        if self.gateway.policy.snapshot is None:
            raise Rejected("no_deployment", retry_after_s=1)
        return authorise(self.gateway.policy.snapshot, token, now_ms(), address)


def refusal(problem: Rejected, path: str) -> Response:
    headers = {"retry-after": str(problem.retry_after_s)} if problem.retry_after_s else {}
    return Response(problem.body(path), problem.status, headers, "application/json")


async def _refused(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Rejected)
    return refusal(problem, request.url.path)


async def _not_found(request: Request, error: Exception) -> Response:
    path = request.url.path
    if path in INFERENCE_PATHS:
        return refusal(Rejected("method_not_allowed"), path)
    return refusal(Rejected("not_found", NO_UPLOADS if path.startswith(NOT_BUILT) else ""), path)


async def _not_allowed(request: Request, error: Exception) -> Response:
    return refusal(Rejected("method_not_allowed"), request.url.path)


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "foundry"}
