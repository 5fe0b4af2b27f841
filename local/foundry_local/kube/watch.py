"""Watch streams: JSON lines of changes, resumable by resource version, with bookmarks."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from foundry_local.kube import errors
from foundry_local.kube.resources import ResourceType
from foundry_local.kube.store import Change, Store
from foundry_local.kube.types import Obj, namespace_of

BOOKMARK_INTERVAL_S = 10.0
MAX_PENDING = 10_000
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What a client asked to watch. `revision` None means: start with the current objects."""

    resource: ResourceType
    namespace: str
    matches: Callable[[Obj], bool]
    revision: int | None
    timeout_s: float
    bookmarks: bool
    initial_end: bool = False


class Watches:
    """Open watch streams on one store; `close` ends them all so that a server can stop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._closing = asyncio.Event()

    def close(self) -> None:
        self._closing.set()

    async def stream(self, request: WatchRequest) -> AsyncIterator[bytes]:
        """Lines of `{"type": ..., "object": ...}` until the timeout, `close`, or the client leaves."""
        pending: asyncio.Queue[Change] = asyncio.Queue(MAX_PENDING)
        overflow = asyncio.Event()
        try:
            backlog = self._backlog(request)
        except errors.ApiError as problem:
            yield _line("ERROR", problem.status())
            return
        unsubscribe = self._store.subscribe(lambda change: _offer(pending, overflow, change))
        try:
            for line in backlog:
                yield line
            if request.initial_end:
                yield self._bookmark(request, initial_end=True)
            async for line in self._follow(request, pending, overflow):
                yield line
        finally:
            unsubscribe()

    def _backlog(self, request: WatchRequest) -> list[bytes]:
        if request.revision is None:
            objects = self._store.select(request.resource, request.namespace)
            return [_line("ADDED", typed(request.resource, obj)) for obj in objects if request.matches(obj)]
        if request.revision > self._store.revision:
            message = f"Too large resource version: {request.revision}, current: {self._store.revision}"
            raise errors.ApiError(504, "Timeout", message)
        changes = self._store.changes_since(request.revision)
        return [line for change in changes if (line := render(request, change))]

    async def _follow(
        self, request: WatchRequest, pending: asyncio.Queue[Change], overflow: asyncio.Event
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + request.timeout_s
        while not overflow.is_set():
            change = await self._next(pending, min(BOOKMARK_INTERVAL_S, end - loop.time()))
            if change is not None:
                if line := render(request, change):
                    yield line
                continue
            if request.bookmarks:
                yield self._bookmark(request)
            if loop.time() >= end or self._closing.is_set():
                return

    async def _next(self, pending: asyncio.Queue[Change], wait_s: float) -> Change | None:
        if not pending.empty():
            return pending.get_nowait()
        get = asyncio.ensure_future(pending.get())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({get, closing}, timeout=max(wait_s, 0), return_when=asyncio.FIRST_COMPLETED)
            return get.result() if get.done() else None
        finally:
            get.cancel()
            closing.cancel()

    def _bookmark(self, request: WatchRequest, *, initial_end: bool = False) -> bytes:
        metadata: Obj = {"resourceVersion": str(self._store.revision), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        obj = {"kind": request.resource.kind, "apiVersion": request.resource.api_version, "metadata": metadata}
        return _line("BOOKMARK", obj)


def _offer(pending: asyncio.Queue[Change], overflow: asyncio.Event, change: Change) -> None:
    """A client that cannot keep up loses its stream, and resumes from its last resource version."""
    if pending.full():
        overflow.set()
    else:
        pending.put_nowait(change)


def render(request: WatchRequest, change: Change) -> bytes | None:
    """The event that a watcher with this selector sees: objects may enter and leave the selection."""
    if change.resource.key != request.resource.key:
        return None
    if request.namespace and namespace_of(change.obj) != request.namespace:
        return None
    before = change.previous is not None and request.matches(change.previous)
    after = change.type != "DELETED" and request.matches(change.obj)
    if not before and not after:
        return None
    kind = "MODIFIED" if before and after else "ADDED" if after else "DELETED"
    return _line(kind, typed(request.resource, change.obj))


def typed(resource: ResourceType, obj: Obj) -> Obj:
    """The object under the API version that the client asked for."""
    return obj if obj.get("apiVersion") == resource.api_version else obj | {"apiVersion": resource.api_version}


def _line(kind: str, obj: Obj) -> bytes:
    return json.dumps({"type": kind, "object": obj}, separators=(",", ":")).encode() + b"\n"
