"""Deletion: preconditions, grace, finalizers, propagation, and the garbage collector that follows owner references."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from foundry_local.kube import errors
from foundry_local.kube.resources import CRDS, NAMESPACES, PODS, ResourceRegistry, ResourceType
from foundry_local.kube.store import Store
from foundry_local.kube.types import Obj, is_deleting, name_of, namespace_of, uid_of
from foundry_local.kube.writes import pending_finalizers

FOREGROUND = "foregroundDeletion"


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """`grace_s` None means the pod's own period; `propagation` is Background, Foreground or Orphan."""

    grace_s: int | None = None
    propagation: str = "Background"
    preconditions: Obj = field(default_factory=dict)
    dry_run: bool = False


def parse_delete_options(body: Any, query: dict[str, str]) -> DeleteOptions:
    """From the `DeleteOptions` body and, where that is silent, the query.

    Raises:
        ApiError: 400, 422.
    """
    options = body if isinstance(body, dict) else {}
    grace = options.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    policy = options.get("propagationPolicy") or query.get("propagationPolicy")
    if policy is None and (options.get("orphanDependents") or query.get("orphanDependents") == "true"):
        policy = "Orphan"
    if policy not in (None, "Background", "Foreground", "Orphan"):
        raise errors.bad_request(f"invalid propagationPolicy: {policy!r}: must be Background, Foreground or Orphan")
    try:
        grace_s = None if grace is None else max(int(grace), 0)
    except (TypeError, ValueError):
        raise errors.bad_request(f"invalid gracePeriodSeconds: {grace!r}") from None
    dry_run = bool(options.get("dryRun") or query.get("dryRun"))
    return DeleteOptions(grace_s, policy or "Background", options.get("preconditions") or {}, dry_run)


class Deleter:
    """Deletes on request of clients and controllers, and collects what has lost its owners."""

    def __init__(self, store: Store, registry: ResourceRegistry) -> None:
        self.store = store
        self.registry = registry

    def delete(
        self, resource: ResourceType, namespace: str, name: str, options: DeleteOptions = DeleteOptions()
    ) -> tuple[Obj, bool]:
        """Returns the object and whether it is gone at once.

        Raises:
            ApiError: 404, 409 for a failed precondition.
        """
        current = self.store.get(resource, namespace, name)
        self._check(resource, current, options.preconditions)
        if options.dry_run:
            return current, True
        if options.propagation == "Orphan":
            self._orphan(uid_of(current))
        if options.propagation == "Foreground" and self._dependents(uid_of(current)):
            self._mark(resource, namespace, name, options, finalizer=FOREGROUND)
        elif self._must_wait(resource, current, options):
            self._mark(resource, namespace, name, options)
        else:
            return self._remove(resource, namespace, name) or current, True
        return self.store.get(resource, namespace, name), False

    def _check(self, resource: ResourceType, current: Obj, preconditions: Obj) -> None:
        metadata = current["metadata"]
        for key in ("uid", "resourceVersion"):
            wanted = preconditions.get(key)
            if wanted and wanted != metadata[key]:
                what = f"{key} in precondition: {wanted}, {key} in object meta: {metadata[key]}"
                raise errors.precondition_failed(resource, metadata["name"], what)

    def _must_wait(self, resource: ResourceType, current: Obj, options: DeleteOptions) -> bool:
        if pending_finalizers(current) or resource is NAMESPACES:
            return True
        if resource is not PODS or options.grace_s == 0:
            return False
        finished = (current.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        return bool((current.get("spec") or {}).get("nodeName")) and not finished

    def _mark(
        self, resource: ResourceType, namespace: str, name: str, options: DeleteOptions, finalizer: str = ""
    ) -> None:
        def edit(obj: Obj) -> None:
            metadata = obj["metadata"]
            grace_s = options.grace_s
            if resource is PODS and grace_s is None:
                grace_s = int(obj["spec"].get("terminationGracePeriodSeconds", 30))
            if "deletionTimestamp" not in metadata:
                at = datetime.now(UTC) + timedelta(seconds=grace_s or 0)
                metadata["deletionTimestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
                metadata["deletionGracePeriodSeconds"] = grace_s or 0
            if finalizer:
                metadata["finalizers"] = [*dict.fromkeys([*pending_finalizers(obj), finalizer])]
            if resource is NAMESPACES:
                obj.setdefault("status", {})["phase"] = "Terminating"

        self.store.mutate(resource, namespace, name, edit)

    def _remove(self, resource: ResourceType, namespace: str, name: str) -> Obj | None:
        removed = self.store.remove(resource, namespace, name)
        if resource is CRDS and removed is not None:
            self._remove_instances(removed)
            self.registry.set_custom(self.store.select(CRDS))
        return removed

    def _remove_instances(self, crd: Obj) -> None:
        resource = self.registry.by_key(f"{crd['spec']['group']}/{crd['spec']['names']['plural']}")
        for item in self.store.select(resource) if resource else []:
            if resource is not None:
                self.store.remove(resource, namespace_of(item), name_of(item))

    def _dependents(self, uid: str) -> list[tuple[ResourceType, Obj]]:
        found = []
        for key, obj in self.store.all():
            owners = obj["metadata"].get("ownerReferences") or []
            resource = self.registry.by_key(key) if any(item["uid"] == uid for item in owners) else None
            if resource is not None:
                found.append((resource, obj))
        return found

    def _orphan(self, uid: str) -> None:
        def edit(obj: Obj) -> None:
            owners = [item for item in obj["metadata"]["ownerReferences"] if item["uid"] != uid]
            obj["metadata"]["ownerReferences"] = owners
            if not owners:
                del obj["metadata"]["ownerReferences"]

        for resource, obj in self._dependents(uid):
            self.store.mutate(resource, namespace_of(obj), name_of(obj), edit)

    def collect(self) -> None:
        """One pass of the garbage collector: ownerless objects, foreground deletions, drained objects."""
        self._delete_ownerless()
        for key, obj in list(self.store.all()):
            resource = self.registry.by_key(key) if is_deleting(obj) else None
            if resource is not None and FOREGROUND in pending_finalizers(obj):
                self._advance_foreground(resource, obj)

    def _delete_ownerless(self) -> None:
        alive = {uid_of(obj) for _, obj in self.store.all()}
        for key, obj in list(self.store.all()):
            owners = obj["metadata"].get("ownerReferences")
            if not owners or is_deleting(obj) or any(item["uid"] in alive for item in owners):
                continue
            if resource := self.registry.by_key(key):
                self.delete(resource, namespace_of(obj), name_of(obj))

    def _advance_foreground(self, resource: ResourceType, obj: Obj) -> None:
        dependents = self._dependents(uid_of(obj))
        for child, item in dependents:
            if not is_deleting(item):
                self.delete(child, namespace_of(item), name_of(item), DeleteOptions(propagation="Foreground"))
        if dependents:
            return

        def release(target: Obj) -> None:
            target["metadata"]["finalizers"].remove(FOREGROUND)

        namespace, name = namespace_of(obj), name_of(obj)
        released = self.store.mutate(resource, namespace, name, release)
        if released is not None and not pending_finalizers(released):
            self._remove(resource, namespace, name)

    def empty_namespace(self, name: str) -> bool:
        """Delete what a terminating namespace holds; True once the namespace itself is gone."""
        left = False
        for key, obj in list(self.store.all()):
            resource = self.registry.by_key(key) if namespace_of(obj) == name else None
            if resource is None:
                continue
            if not is_deleting(obj):
                self.delete(resource, name, name_of(obj))
            left = left or self.store.peek(resource, name, name_of(obj)) is not None
        if not left:
            self.store.remove(NAMESPACES, "", name)
        return not left
