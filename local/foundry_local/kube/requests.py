"""What a request asks for: the resource path and the query parameters, as the API server reads them."""

import base64
import json
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from foundry_local.kube import errors
from foundry_local.kube.resources import ResourceRegistry, ResourceType
from foundry_local.kube.writes import WriteOptions

MAX_BODY_BYTES = 3 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """The resource that a path names; `name` empty for a collection, `rest` is what follows the subresource."""

    resource: ResourceType
    namespace: str
    name: str
    subresource: str
    rest: str = ""


def parse_target(path: str, registry: ResourceRegistry) -> Target:
    """Read `/api/v1/...` or `/apis/{group}/{version}/...`.

    Raises:
        ApiError: 404.
    """
    parts = [part for part in path.split("/") if part]
    if parts[:2] == ["api", "v1"]:
        group, version, parts = "", "v1", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 3:
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        raise errors.unknown_path()
    namespace = ""
    if parts[:1] == ["namespaces"] and len(parts) > 2 and registry.find(group, version, parts[2]):
        namespace, parts = parts[1], parts[2:]
    resource = registry.find(group, version, parts[0]) if parts else None
    if resource is None or (namespace and not resource.namespaced):
        raise errors.unknown_path()
    name, subresource = [*parts[1:3], "", ""][:2]
    if name and resource.namespaced and not namespace:
        raise errors.unknown_path()
    return Target(resource, namespace, name, subresource, "/".join(parts[3:]))


def write_options(request: Request, subresource: str) -> WriteOptions:
    """The query parameters of a write; the manager defaults to the client's name, except for apply."""
    query = request.query_params
    dry_run = query.get("dryRun")
    if dry_run not in (None, "", "All"):
        raise errors.bad_request(f'dryRun: Unsupported value: "{dry_run}": supported values: "All"')
    manager = query.get("fieldManager", "")
    if not manager and media_type(request) != "application/apply-patch+yaml":
        manager = request.headers.get("user-agent", "unknown").partition("/")[0][:128] or "unknown"
    force = query.get("force", "").lower() in ("true", "1")
    return WriteOptions(manager, force, bool(dry_run), subresource)


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request) -> bytes:
    """The body, at most `MAX_BODY_BYTES`.

    Raises:
        ApiError: 413.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise errors.too_large(MAX_BODY_BYTES)
    return bytes(body)


def flag(query: Any, name: str) -> bool:
    return str(query.get(name, "")).lower() in ("true", "1")


def number(query: Any, name: str, default: int) -> int:
    """A non-negative integer query parameter.

    Raises:
        ApiError: 400.
    """
    text = query.get(name) or ""
    if not text:
        return default
    if not text.isdigit() or len(text) > 18:
        raise errors.bad_request(f"invalid value for {name}: {text!r}")
    return int(text)


def encode_continue(revision: int, after: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([revision, *after]).encode()).decode()


def decode_continue(token: str) -> tuple[int, tuple[str, str]]:
    """Raises: ApiError: 400, the token is none of ours."""
    try:
        revision, namespace, name = json.loads(base64.urlsafe_b64decode(token))
        return int(revision), (str(namespace), str(name))
    except (ValueError, TypeError):
        raise errors.bad_request("continue key is not valid") from None
