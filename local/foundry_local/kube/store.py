"""The object store: every stored object is immutable by convention, every write is one numbered change.

A write replaces the stored dict by a new one, so readers and watch history may hold references without copies;
who wants to edit takes a `clone`.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from foundry_local.kube import errors
from foundry_local.kube.resources import ResourceType
from foundry_local.kube.types import Obj, clone, name_of, namespace_of, now_text

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]
HISTORY_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Change:
    """One write: `obj` is the state after it (for DELETED the last state), `previous` the one before."""

    revision: int
    type: ChangeType
    resource: ResourceType
    obj: Obj
    previous: Obj | None


Listener = Callable[[Change], None]


class Store:
    """Objects by resource and name, one revision counter, a bounded change history for watches."""

    def __init__(self, history_length: int = HISTORY_LENGTH) -> None:
        self.revision = 1
        self._objects: dict[str, dict[tuple[str, str], Obj]] = {}
        self._history: deque[Change] = deque(maxlen=history_length)
        self._compacted = 1
        self._listeners: list[Listener] = []

    def peek(self, resource: ResourceType, namespace: str, name: str) -> Obj | None:
        """The stored object itself: read, never edit."""
        return self._objects.get(resource.key, {}).get((namespace, name))

    def get(self, resource: ResourceType, namespace: str, name: str) -> Obj:
        """A private copy.

        Raises:
            ApiError: 404.
        """
        found = self.peek(resource, namespace, name)
        if found is None:
            raise errors.not_found(resource, name)
        return clone(found)  # type: ignore[no-any-return]

    def select(self, resource: ResourceType, namespace: str = "") -> list[Obj]:
        """The stored objects in key order: read, never edit. An empty namespace means all."""
        items = self._objects.get(resource.key, {})
        return [items[key] for key in sorted(items) if not namespace or key[0] == namespace]

    def create(self, resource: ResourceType, obj: Obj) -> Obj:
        """Store a new object; sets uid, creation time and resource version.

        Raises:
            ApiError: 409, the name is taken.
        """
        metadata = obj["metadata"]
        key = (namespace_of(obj) if resource.namespaced else "", name_of(obj))
        if key in self._objects.setdefault(resource.key, {}):
            raise errors.already_exists(resource, key[1])
        metadata.setdefault("uid", str(uuid4()))
        metadata.setdefault("creationTimestamp", now_text())
        self._commit("ADDED", resource, key, obj, None)
        return obj

    def replace(self, resource: ResourceType, obj: Obj) -> Obj:
        """Store a new state of an existing object; a state without a difference is no write.

        Raises:
            ApiError: 404.
        """
        key = (namespace_of(obj) if resource.namespaced else "", name_of(obj))
        previous = self.peek(resource, *key)
        if previous is None:
            raise errors.not_found(resource, key[1])
        obj["metadata"]["resourceVersion"] = previous["metadata"]["resourceVersion"]
        if obj == previous:
            return previous
        self._commit("MODIFIED", resource, key, obj, previous)
        return obj

    def mutate(self, resource: ResourceType, namespace: str, name: str, edit: Callable[[Obj], None]) -> Obj | None:
        """Read, edit a copy, write back; None where the object is gone. For controllers: cannot conflict."""
        current = self.peek(resource, namespace, name)
        if current is None:
            return None
        changed: Obj = clone(current)
        edit(changed)
        return self.replace(resource, changed)

    def remove(self, resource: ResourceType, namespace: str, name: str) -> Obj | None:
        previous = self._objects.get(resource.key, {}).pop((namespace, name), None)
        if previous is None:
            return None
        last: Obj = clone(previous)
        self.revision += 1
        last["metadata"]["resourceVersion"] = str(self.revision)
        self._announce(Change(self.revision, "DELETED", resource, last, previous))
        return last

    def _commit(
        self, kind: ChangeType, resource: ResourceType, key: tuple[str, str], obj: Obj, previous: Obj | None
    ) -> None:
        self.revision += 1
        obj["metadata"]["resourceVersion"] = str(self.revision)
        self._objects[resource.key][key] = obj
        self._announce(Change(self.revision, kind, resource, obj, previous))

    def _announce(self, change: Change) -> None:
        if self._history.maxlen is not None and len(self._history) == self._history.maxlen:
            self._compacted = self._history[0].revision
        self._history.append(change)
        for listener in tuple(self._listeners):
            listener(change)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` on every change, in order, synchronously; returns the unsubscriber."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def changes_since(self, revision: int) -> list[Change]:
        """Changes after a revision.

        Raises:
            ApiError: 410, the history does not reach back that far.
        """
        if revision < self._compacted:
            raise errors.expired(revision, self._compacted)
        return [change for change in self._history if change.revision > revision]

    def compact(self) -> None:
        """Forget the history: every older resource version is now too old to watch from."""
        self._history.clear()
        self._compacted = self.revision

    def all(self) -> Iterator[tuple[str, Obj]]:
        for key, items in self._objects.items():
            for obj in items.values():
                yield key, obj

    def dump(self) -> Obj:
        """The state as JSON data."""
        objects = {key: list(items.values()) for key, items in self._objects.items() if items}
        return {"revision": self.revision, "objects": objects}

    def load(self, state: Obj) -> None:
        """Replace the state by a dump; announces nothing, and older resource versions are gone (410)."""
        self._objects = {
            key: {(namespace_of(item), name_of(item)): item for item in items}
            for key, items in state["objects"].items()
        }
        self.revision = int(state["revision"])
        self.compact()
