"""What workload controllers share: owner references, pods from templates, readiness."""

from collections.abc import Callable

from foundry_local.kube.deletion import Deleter
from foundry_local.kube.errors import ApiError
from foundry_local.kube.events import Recorder
from foundry_local.kube.resources import PODS, ResourceType
from foundry_local.kube.store import Store
from foundry_local.kube.types import (
    Obj,
    clone,
    condition,
    controller_of,
    dig,
    is_deleting,
    name_of,
    namespace_of,
    uid_of,
)
from foundry_local.kube.writes import Writer


class Controller:
    """Base of a level-triggered controller of one kind. `speed` divides the deadlines of manifests."""

    resource: ResourceType

    def __init__(self, store: Store, writer: Writer, deleter: Deleter, recorder: Recorder, speed: float = 1.0) -> None:
        self.store = store
        self.writer = writer
        self.deleter = deleter
        self.recorder = recorder
        self.speed = speed
        self.source = f"{self.resource.kind.lower()}-controller"

    def reconcile(self) -> None:
        """One pass over all objects. A refused write (a terminating namespace, a missing service account) is an
        event, not a crash."""
        for obj in self.store.select(self.resource):
            if is_deleting(obj):
                continue
            try:
                self.reconcile_one(obj)
            except ApiError as problem:
                self.event(obj, "FailedCreate", problem.message, warning=True)

    def reconcile_one(self, obj: Obj) -> None:
        raise NotImplementedError

    def owned(self, resource: ResourceType, owner: Obj) -> list[Obj]:
        return [
            item
            for item in self.store.select(resource, namespace_of(owner))
            if (reference := controller_of(item)) and reference["uid"] == uid_of(owner)
        ]

    def edit(self, obj: Obj, change: Callable[[Obj], None], resource: ResourceType | None = None) -> None:
        self.store.mutate(resource or self.resource, namespace_of(obj), name_of(obj), change)

    def event(self, about: Obj, reason: str, message: str, *, warning: bool = False) -> None:
        self.recorder.record(about, reason, message, source=self.source, warning=warning)

    def create_pod(self, owner: Obj, template: Obj) -> None:
        pod = pod_from_template(template, self.resource, owner)
        created = self.writer.create(PODS, namespace_of(owner), pod)
        self.event(owner, "SuccessfulCreate", f"Created pod: {name_of(created)}")


def owner_reference(resource: ResourceType, owner: Obj) -> Obj:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def pod_from_template(template: Obj, resource: ResourceType, owner: Obj) -> Obj:
    metadata: Obj = {"generateName": f"{name_of(owner)}-", "namespace": namespace_of(owner)}
    for key in ("labels", "annotations"):
        if values := dig(template, "metadata", key):
            metadata[key] = clone(values)
    metadata["ownerReferences"] = [owner_reference(resource, owner)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": clone(template["spec"])}


def phase(pod: Obj) -> str:
    return str(dig(pod, "status", "phase", default="Pending"))


def is_ready(pod: Obj) -> bool:
    ready = condition(pod, "Ready")
    return bool(ready and ready["status"] == "True")


def replicas_of(obj: Obj) -> int:
    return int(dig(obj, "spec", "replicas", default=0))
