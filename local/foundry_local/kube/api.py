"""The simulated API server: an ASGI application that answers as kube-apiserver does, for the parts that clients use."""

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from foundry_local.kube import errors
from foundry_local.kube.deletion import Deleter, parse_delete_options
from foundry_local.kube.requests import (
    Target,
    decode_continue,
    encode_continue,
    flag,
    media_type,
    number,
    parse_target,
    read_body,
    write_options,
)
from foundry_local.kube.resources import ResourceRegistry, ResourceType
from foundry_local.kube.selectors import parse_field_selector, parse_label_selector
from foundry_local.kube.store import Store
from foundry_local.kube.types import Obj, labels_of, name_of, namespace_of, uid_of
from foundry_local.kube.watch import Watches, WatchRequest, typed
from foundry_local.kube.writes import Writer, parse_document

logger = logging.getLogger(__name__)

VERSION = {
    "major": "1",
    "minor": "33",
    "gitVersion": "v1.33.4+foundry-local",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2025-08-13T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
DEFAULT_WATCH_S = 1800
_RETURNS_OBJECT = frozenset(
    {"Pod", "Service", "ServiceAccount", "PersistentVolume", "PersistentVolumeClaim", "ResourceQuota"}
)

Subresource = Callable[[Request, Target], Awaitable[Response]]


class KubeApi:
    """Authenticates, routes and answers. Subresources other than status plug in by `(plural, name)`."""

    def __init__(
        self,
        store: Store,
        registry: ResourceRegistry,
        writer: Writer,
        deleter: Deleter,
        watches: Watches,
        tokens: Callable[[str], bool],
    ) -> None:
        self.store = store
        self.registry = registry
        self.writer = writer
        self.deleter = deleter
        self.watches = watches
        self.subresources: dict[tuple[str, str], Subresource] = {}
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except errors.ApiError as problem:
            response = JSONResponse(problem.status(), problem.code)
        except Exception:
            logger.exception("simulated API server failed on %s %s", request.method, request.url.path)
            response = JSONResponse(errors.internal().status(), 500)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self._tokens(token.strip()):
            raise errors.unauthorized()
        path = request.url.path.rstrip("/")
        if path in ("/healthz", "/livez", "/readyz"):
            return PlainTextResponse("ok")
        discovery = self._discovery(path)
        if discovery is not None:
            if request.method != "GET":
                raise errors.method_not_allowed()
            return JSONResponse(discovery)
        return await self._resource(request, parse_target(path, self.registry))

    def _discovery(self, path: str) -> Obj | None:
        parts = path.split("/")[1:]
        if path == "/version":
            return VERSION
        if path == "/api":
            return self.registry.core_versions()
        if path == "/api/v1":
            return self.registry.resource_list("", "v1")
        if path == "/apis":
            return self.registry.group_list()
        if parts[:1] == ["apis"] and len(parts) in (2, 3):
            found = self.registry.group(parts[1]) if len(parts) == 2 else self.registry.resource_list(*parts[1:])
            if found is None:
                raise errors.unknown_path()
            return found
        return None

    async def _resource(self, request: Request, target: Target) -> Response:
        if target.subresource and target.subresource != "status":
            handler = self.subresources.get((target.resource.plural, target.subresource))
            if handler is None:
                raise errors.unknown_path()
            return await handler(request, target)
        if target.subresource and not target.resource.has_status:
            raise errors.unknown_path()
        handlers = self._item_methods() if target.name else self._collection_methods()
        method = handlers.get(request.method)
        if method is None or (target.subresource and request.method in ("DELETE", "POST")):
            raise errors.method_not_allowed()
        return await method(request, target)

    def _collection_methods(self) -> Mapping[str, Subresource]:
        return {"GET": self._list, "POST": self._create, "DELETE": self._delete_collection}

    def _item_methods(self) -> Mapping[str, Subresource]:
        return {"GET": self._get, "PUT": self._replace, "PATCH": self._patch, "DELETE": self._delete}

    async def _get(self, request: Request, target: Target) -> Response:
        if flag(request.query_params, "watch"):
            return self._watch(request, target)
        found = self.store.peek(target.resource, target.namespace, target.name)
        if found is None:
            raise errors.not_found(target.resource, target.name)
        return JSONResponse(typed(target.resource, found))

    async def _list(self, request: Request, target: Target) -> Response:
        if flag(request.query_params, "watch"):
            return self._watch(request, target)
        matches = _matcher(request, target)
        items = [obj for obj in self.store.select(target.resource, target.namespace) if matches(obj)]
        return JSONResponse(self._page(request, target, items))

    def _page(self, request: Request, target: Target, items: list[Obj]) -> Obj:
        query = request.query_params
        revision, limit = self.store.revision, number(query, "limit", 0)
        if token := query.get("continue"):
            revision, after = decode_continue(token)
            self.store.changes_since(revision)
            items = [obj for obj in items if (namespace_of(obj), name_of(obj)) > after]
        metadata: Obj = {"resourceVersion": str(revision)}
        if limit and len(items) > limit:
            last = items[limit - 1]
            metadata["continue"] = encode_continue(revision, (namespace_of(last), name_of(last)))
            metadata["remainingItemCount"] = len(items) - limit
            items = items[:limit]
        return list_of(target.resource, items, metadata)

    def _watch(self, request: Request, target: Target) -> Response:
        query = request.query_params
        version = query.get("resourceVersion", "")
        revision = None if version in ("", "0") else number(query, "resourceVersion", 0)
        initial = flag(query, "sendInitialEvents")
        watch = WatchRequest(
            target.resource,
            target.namespace,
            _matcher(request, target),
            None if initial else revision,
            float(number(query, "timeoutSeconds", DEFAULT_WATCH_S)),
            flag(query, "allowWatchBookmarks"),
            initial,
        )
        return StreamingResponse(self.watches.stream(watch), media_type="application/json")

    async def _create(self, request: Request, target: Target) -> Response:
        if target.resource.namespaced and not target.namespace:
            raise errors.method_not_allowed()
        body = parse_document(await read_body(request))
        options = write_options(request, "")
        created = self.writer.create(target.resource, target.namespace, body, options)
        return JSONResponse(typed(target.resource, created), 201)

    async def _replace(self, request: Request, target: Target) -> Response:
        body = parse_document(await read_body(request))
        options = write_options(request, target.subresource)
        stored = self.writer.replace(target.resource, target.namespace, target.name, body, options)
        return JSONResponse(typed(target.resource, stored))

    async def _patch(self, request: Request, target: Target) -> Response:
        body = await read_body(request)
        options = write_options(request, target.subresource)
        stored, created = self.writer.patch(
            target.resource, target.namespace, target.name, body, media_type(request), options
        )
        return JSONResponse(typed(target.resource, stored), 201 if created else 200)

    async def _delete(self, request: Request, target: Target) -> Response:
        body = await read_body(request)
        options = parse_delete_options(parse_document(body) if body else None, dict(request.query_params))
        obj, gone = self.deleter.delete(target.resource, target.namespace, target.name, options)
        if not gone or target.resource.kind in _RETURNS_OBJECT:
            return JSONResponse(typed(target.resource, obj))
        return JSONResponse(success(target.resource, obj))

    async def _delete_collection(self, request: Request, target: Target) -> Response:
        if target.resource.namespaced and not target.namespace:
            raise errors.method_not_allowed()
        body = await read_body(request)
        options = parse_delete_options(parse_document(body) if body else None, dict(request.query_params))
        matches = _matcher(request, target)
        items = [obj for obj in self.store.select(target.resource, target.namespace) if matches(obj)]
        for obj in items:
            self.deleter.delete(target.resource, namespace_of(obj), name_of(obj), options)
        return JSONResponse(list_of(target.resource, items, {"resourceVersion": str(self.store.revision)}))


def list_of(resource: ResourceType, items: list[Obj], metadata: Obj) -> Obj:
    """A typed list."""
    shown = [typed(resource, item) for item in items]
    return {
        "kind": f"{resource.kind}List",
        "apiVersion": resource.api_version,
        "metadata": metadata,
        "items": shown,
    }


def success(resource: ResourceType, obj: Obj) -> Obj:
    details = {"name": name_of(obj), "kind": resource.plural, "uid": uid_of(obj)}
    if resource.group:
        details["group"] = resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _matcher(request: Request, target: Target) -> Callable[[Obj], bool]:
    """Label selector, field selector and, for a watch on a named object, its name."""
    query = request.query_params
    labels = parse_label_selector(query.get("labelSelector", ""))
    fields = parse_field_selector(query.get("fieldSelector", ""), target.resource)
    name = target.name
    return lambda obj: (not name or name_of(obj) == name) and labels(labels_of(obj)) and fields(obj)


def token_check(accepted: Callable[[], list[str]]) -> Callable[[str], bool]:
    """Compare with every accepted token in constant time."""

    def check(token: str) -> bool:
        candidate = token.encode()
        found = False
        for known in accepted():
            found = secrets.compare_digest(candidate, known.encode()) or found
        return bool(candidate) and found

    return check


__all__ = ["KubeApi", "list_of", "success", "token_check"]
