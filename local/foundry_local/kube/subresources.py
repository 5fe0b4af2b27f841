"""Subresources beside status: logs, eviction, binding, scale, tokens, namespace finalisers, and the HTTP proxy."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from foundry_local.kube import errors
from foundry_local.kube.api import KubeApi
from foundry_local.kube.deletion import Deleter, parse_delete_options
from foundry_local.kube.kubelet import Kubelet
from foundry_local.kube.requests import Target, flag, media_type, number, read_body, write_options
from foundry_local.kube.resources import PODS, SERVICES, ResourceType
from foundry_local.kube.services import Services
from foundry_local.kube.store import Store
from foundry_local.kube.types import Obj, dig, parse_time, set_condition
from foundry_local.kube.writes import Writer, parse_document, patched

_TOKEN_LIFE_S = 3600


class Subresources:
    """Handlers that plug into `KubeApi.subresources`."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        deleter: Deleter,
        kubelet: Kubelet,
        services: Services,
        issue_token: Callable[[str, str], str],
    ) -> None:
        self.store = store
        self.writer = writer
        self.deleter = deleter
        self.kubelet = kubelet
        self.services = services
        self._issue_token = issue_token

    def install(self, api: KubeApi) -> None:
        handlers = {
            ("pods", "log"): self.log,
            ("pods", "eviction"): self.evict,
            ("pods", "binding"): self.bind,
            ("services", "proxy"): self.proxy,
            ("serviceaccounts", "token"): self.token,
            ("namespaces", "finalize"): self.finalize,
        }
        for plural in ("deployments", "replicasets", "statefulsets"):
            handlers[(plural, "scale")] = self.scale
        api.subresources |= handlers

    async def log(self, request: Request, target: Target) -> Response:
        _only(request, "GET")
        pod = self.store.get(PODS, target.namespace, target.name)
        worker = self.kubelet.worker_of(pod)
        if worker is None:
            return PlainTextResponse("")
        query = request.query_params
        lines = list(worker.previous_logs if flag(query, "previous") else worker.logs)
        if "sinceSeconds" in query:
            since = datetime.now(UTC) - timedelta(seconds=number(query, "sinceSeconds", 0))
            lines = [line for line in lines if parse_time(line.partition(" ")[0]) >= since]
        if "tailLines" in query:
            count = number(query, "tailLines", 0)
            lines = lines[-count:] if count else []
        stamped = flag(query, "timestamps")
        if flag(query, "follow"):
            return StreamingResponse(self._follow(pod, lines, stamped), media_type="text/plain")
        return PlainTextResponse("".join(_log_line(line, stamped) for line in lines))

    async def _follow(self, pod: Obj, lines: list[str], stamped: bool) -> AsyncIterator[str]:
        """Lines as they come, until the pod is gone."""
        last = lines[-1] if lines else ""
        for line in lines:
            yield _log_line(line, stamped)
        while (worker := self.kubelet.worker_of(pod)) is not None:
            current = list(worker.logs)
            start = current.index(last) + 1 if last in current else 0
            for line in current[start:]:
                yield _log_line(line, stamped)
                last = line
            await asyncio.sleep(0.1)

    async def evict(self, request: Request, target: Target) -> Response:
        _only(request, "POST")
        body = parse_document(await read_body(request))
        options = parse_delete_options(dig(body, "deleteOptions"), dict(request.query_params))
        self.deleter.delete(PODS, target.namespace, target.name, options)
        return JSONResponse({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, 201)

    async def bind(self, request: Request, target: Target) -> Response:
        _only(request, "POST")
        node = dig(parse_document(await read_body(request)), "target", "name")
        pod = self.store.get(PODS, target.namespace, target.name)
        if not node or dig(pod, "spec", "nodeName"):
            raise errors.stale(PODS, target.name)

        def edit(obj: Obj) -> None:
            obj["spec"]["nodeName"] = node
            set_condition(obj, "PodScheduled", "True")

        self.store.mutate(PODS, target.namespace, target.name, edit)
        return JSONResponse({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, 201)

    async def token(self, request: Request, target: Target) -> Response:
        """TokenRequest: a bearer token that this server accepts until it stops (RBAC is stored, not enforced)."""
        _only(request, "POST")
        body = parse_document(await read_body(request)) or {}
        self.store.get(target.resource, target.namespace, target.name)
        life_s = int(dig(body, "spec", "expirationSeconds", default=_TOKEN_LIFE_S))
        expires = (datetime.now(UTC) + timedelta(seconds=life_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = {"token": self._issue_token(target.namespace, target.name), "expirationTimestamp": expires}
        spec = {"audiences": ["https://kubernetes.default.svc"], "expirationSeconds": life_s}
        kind = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"}
        metadata = {"name": target.name, "namespace": target.namespace}
        return JSONResponse(kind | {"metadata": metadata, "spec": spec, "status": status}, 201)

    async def finalize(self, request: Request, target: Target) -> Response:
        _only(request, "PUT")
        wanted = dig(parse_document(await read_body(request)), "spec", "finalizers", default=[])

        def edit(obj: Obj) -> None:
            obj["spec"]["finalizers"] = wanted

        self.store.mutate(target.resource, "", target.name, edit)
        return JSONResponse(self.store.get(target.resource, "", target.name))

    async def scale(self, request: Request, target: Target) -> Response:
        current = self.store.get(target.resource, target.namespace, target.name)
        if request.method == "GET":
            return JSONResponse(_scale_of(target.resource, current))
        document = parse_document(await read_body(request))
        if request.method == "PATCH":
            shown = _scale_of(target.resource, current)
            document = patched(_SCALE, shown, document, media_type(request))
        elif request.method != "PUT":
            raise errors.method_not_allowed()
        replicas = dig(document, "spec", "replicas", default=0)
        if not isinstance(replicas, int) or replicas < 0:
            message = "Invalid value: must be greater than or equal to 0"
            raise errors.invalid(_SCALE, target.name, [("spec.replicas", message)])
        options = write_options(request, "scale")
        stored = self.writer.scale(target.resource, target.namespace, target.name, replicas, options)
        return JSONResponse(_scale_of(target.resource, stored))

    async def proxy(self, request: Request, target: Target) -> Response:
        """`/services/[scheme:]name[:port]/proxy/path`: the request goes to a ready pod of the service."""
        parts = target.name.split(":")
        name, port = (parts[1], parts[2]) if len(parts) == 3 else (parts[0], parts[1] if len(parts) > 1 else "")
        service = self.store.get(SERVICES, target.namespace, name)
        twin = self.services.backend(service, port)
        if twin is None:
            raise errors.unavailable(f'no endpoints available for service "{target.name}"')
        return Forward(twin.app, f"/{target.rest}")


class Forward(Response):
    """Hands the request to another application in this process, body and disconnects included."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        super().__init__()
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The bearer token is the cluster's, not the engine's: it ends here, as on a real API server.
        headers = [(name, value) for name, value in scope["headers"] if name != b"authorization"]
        changed = {"path": self._path, "raw_path": self._path.encode(), "headers": headers}
        await self._app({**scope, **changed}, receive, send)


def _only(request: Request, method: str) -> None:
    if request.method != method:
        raise errors.method_not_allowed()


def _log_line(line: str, stamped: bool) -> str:
    return (line if stamped else line.partition(" ")[2]) + "\n"


_SCALE = ResourceType("autoscaling", "v1", "scales", "Scale")


def _scale_of(resource: ResourceType, obj: Obj) -> Obj:
    keys = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    selector = dig(obj, "spec", "selector", "matchLabels", default={})
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: obj["metadata"][key] for key in keys if key in obj["metadata"]},
        "spec": {"replicas": dig(obj, "spec", "replicas", default=0)},
        "status": {
            "replicas": dig(obj, "status", "replicas", default=0),
            "selector": ",".join(f"{key}={value}" for key, value in sorted(selector.items())),
        },
    }
