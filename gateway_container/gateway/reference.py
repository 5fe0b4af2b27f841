"""The reference form: the policy core behind plain ASGI. For tests, for Lambda, and as the measure of the hot path.

``create_app(settings)`` is a complete gateway; mount it or run it with any ASGI server (its lifespan must run).
"""

import contextlib
from collections.abc import AsyncIterator

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.core.call import INFERENCE_PATHS
from gateway.core.headers import unsound_head
from gateway.core.problems import Rejected
from gateway.inference import Inference, upstream_client
from gateway.runtime import Gateway
from gateway.settings import Settings
from gateway.side import Side, refusal


class SoundHeads:
    """ASGI middleware: not every server refuses what the hot path refuses."""

    def __init__(self, app: ASGIApp, max_header_bytes: int) -> None:
        self.app = app
        self.max_header_bytes = max_header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http":
            problem = self._problem(scope)
            if problem is not None:
                app = refusal(problem, scope["path"])
                app.headers["connection"] = "close"
        await app(scope, receive, send)

    def _problem(self, scope: Scope) -> Rejected | None:
        headers = scope["headers"]
        if sum(len(name) + len(value) for name, value in headers) + len(scope["path"]) > self.max_header_bytes:
            return Rejected("header_too_large")
        codings = [value for name, value in headers if name == b"transfer-encoding"]
        hosts = [value for name, value in headers if name == b"host"]
        return unsound_head(hosts, codings, scope["http_version"] == "1.0")


class InferenceRoute:
    """ASGI endpoint of every inference path."""

    def __init__(self, gateway: Gateway, client: httpx.AsyncClient, side: Side) -> None:
        self.gateway = gateway
        self.client = client
        self.side = side

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self.side(scope, receive, send)
            return
        await Inference(self.gateway, self.client, scope, receive, send).run()


def create_app(settings: Settings, upstream: httpx.AsyncBaseTransport | None = None) -> Starlette:
    """A gateway as an ASGI application. ``app.state.gateway`` is its runtime."""
    gateway = Gateway(settings)
    client = upstream_client(settings, upstream)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await gateway.start()
        try:
            yield
        finally:
            await client.aclose()
            await gateway.stop()

    side = Side(gateway)
    inference = InferenceRoute(gateway, client, side)
    routes = [Route(path, inference) for path in sorted(INFERENCE_PATHS)]
    sound = Middleware(SoundHeads, settings.max_header_bytes)
    app = Starlette(routes=[*routes, Mount("/", side)], middleware=[sound], lifespan=lifespan)
    app.state.gateway = gateway
    return app
