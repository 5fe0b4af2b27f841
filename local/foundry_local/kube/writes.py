"""The write path: create, replace, patch and server-side apply, and who owns which field afterwards."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import yaml

from foundry_local.kube import errors, managed
from foundry_local.kube.admission import Admission, without_nulls
from foundry_local.kube.defaults import apply_defaults
from foundry_local.kube.patch import json_patch, merge_patch, strategic_merge
from foundry_local.kube.resources import (
    CRDS,
    SECRETS,
    ResourceRegistry,
    ResourceType,
)
from foundry_local.kube.schema import MergeRules
from foundry_local.kube.store import Store
from foundry_local.kube.types import Obj, clone, is_deleting, name_of, random_suffix

APPLY = "application/apply-patch+yaml"
_KEPT = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "generateName")
_CONTROLLER = "kube-controller-manager"


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """The query parameters of a write."""

    manager: str = _CONTROLLER
    force: bool = False
    dry_run: bool = False
    subresource: str = ""


def parse_document(body: bytes) -> Any:
    """JSON, or YAML where it is not JSON.

    Raises:
        ApiError: 400.
    """
    try:
        return json.loads(body)
    except ValueError:
        pass
    try:
        return yaml.safe_load(body)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as problem:
        raise errors.bad_request(f"error decoding the body: {type(problem).__name__}") from problem


class Writer:
    """Every change that clients and controllers make to objects, except deletion."""

    def __init__(self, store: Store, registry: ResourceRegistry) -> None:
        self.store = store
        self.registry = registry
        self.admission = Admission(store)

    def create(self, resource: ResourceType, namespace: str, body: Any, options: WriteOptions = WriteOptions()) -> Obj:
        """Store a new object.

        Raises:
            ApiError: 400, 403, 404 (namespace), 409, 422.
        """
        obj = self.admission.admit(resource, namespace, body)
        metadata = obj["metadata"]
        if "name" not in metadata and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + random_suffix()
        if metadata.get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        return self._insert(resource, namespace, obj, options, record=True)

    def _insert(self, resource: ResourceType, namespace: str, obj: Obj, options: WriteOptions, *, record: bool) -> Obj:
        metadata = obj["metadata"]
        for key in ("deletionTimestamp", "creationTimestamp", "resourceVersion", "selfLink"):
            metadata.pop(key, None)
        metadata["uid"] = str(uuid4())
        if resource.has_status and resource.kind != "Node":
            obj.pop("status", None)
        self.admission.check_namespace(resource, namespace)
        self.admission.prepare(resource, obj)
        if "spec" in obj:
            metadata["generation"] = 1
        if record:
            managed.record_update(None, obj, rules_of(resource), options.manager, resource.api_version)
        if self.store.peek(resource, namespace, metadata["name"]) is not None:
            raise errors.already_exists(resource, metadata["name"])
        if options.dry_run:
            return obj
        created = self.store.create(resource, obj)
        self._after(resource)
        return created

    def replace(self, resource: ResourceType, namespace: str, name: str, body: Any, options: WriteOptions) -> Obj:
        """PUT: the whole object; with a resource version it must be the current one.

        Raises:
            ApiError: 400, 404, 409 stale, 422.
        """
        old = self.store.get(resource, namespace, name)
        new = self.admission.admit(resource, namespace, body)
        if new["metadata"].setdefault("name", name) != name:
            raise errors.bad_request("the name of the object does not match the name on the URL")
        return self.commit(resource, old, new, options)

    def patch(
        self,
        resource: ResourceType,
        namespace: str,
        name: str,
        body: bytes,
        media_type: str,
        options: WriteOptions,
    ) -> tuple[Obj, bool]:
        """PATCH of any type; returns the object and whether it was created (server-side apply only).

        Raises:
            ApiError: 400, 404, 409, 415, 422.
        """
        document = parse_document(body)
        if media_type == APPLY:
            return self._apply(resource, namespace, name, document, options)
        old = self.store.get(resource, namespace, name)
        new = patched(resource, old, document, media_type)
        new = self.admission.admit(resource, namespace, new)
        if new["metadata"].get("name") != name:
            raise errors.invalid(resource, name, [("metadata.name", "Invalid value: field is immutable")])
        return self.commit(resource, old, new, options), False

    def _apply(
        self, resource: ResourceType, namespace: str, name: str, document: Any, options: WriteOptions
    ) -> tuple[Obj, bool]:
        if not options.manager:
            raise errors.bad_request(
                "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply patch"
            )
        config = without_nulls(self.admission.admit(resource, namespace, document))
        metadata = config["metadata"]
        if metadata.setdefault("name", name) != name:
            raise errors.bad_request("the name of the object does not match the name on the URL")
        if metadata.get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        if resource.kind == "Secret":
            apply_secret_strings(config)
        return self._apply_config(resource, namespace, config, options)

    def _apply_config(
        self, resource: ResourceType, namespace: str, config: Obj, options: WriteOptions
    ) -> tuple[Obj, bool]:
        name = name_of(config)
        old = self.store.peek(resource, namespace, name)
        if old is None and (options.subresource or config["metadata"].get("uid")):
            raise errors.not_found(resource, name)
        config["metadata"].pop("uid", None)
        version = config["metadata"].pop("resourceVersion", None)
        if old is not None and version and version != old["metadata"]["resourceVersion"]:
            raise errors.stale(resource, name)
        reset_unwritable(resource, config, options.subresource)
        merged = managed.apply(
            clone(old) if old else None, config, rules_of(resource), options.manager,
            force=options.force, subresource=options.subresource,
        )  # fmt: skip
        if old is None:
            return self._insert(resource, namespace, merged, options, record=False), True
        return self.commit(resource, old, merged, options, applied=True), False

    def commit(
        self, resource: ResourceType, old: Obj, new: Obj, options: WriteOptions, *, applied: bool = False
    ) -> Obj:
        """Store `new` over `old`, which was read just now."""
        metadata, before = new["metadata"], old["metadata"]
        name = before["name"]
        version = metadata.get("resourceVersion")
        if version and version != before["resourceVersion"]:
            raise errors.stale(resource, name)
        if metadata.get("uid") and metadata["uid"] != before["uid"]:
            raise errors.precondition_failed(resource, name, f"UID in precondition: {metadata['uid']}")
        for key in _KEPT:
            metadata.pop(key, None)
            if key in before:
                metadata[key] = before[key]
        new = self._select_part(resource, old, new, options.subresource)
        self.admission.prepare(resource, new, old)
        if new.get("spec") != old.get("spec") and "generation" in before:
            new["metadata"]["generation"] = before["generation"] + 1
        if not applied:
            rules = rules_of(resource)
            managed.record_update(old, new, rules, options.manager, resource.api_version, options.subresource)
        return self._put(resource, new, dry_run=options.dry_run)

    def _select_part(self, resource: ResourceType, old: Obj, new: Obj, subresource: str) -> Obj:
        """The status endpoint changes only the status, the main one everything else."""
        if subresource == "status":
            part: Obj = clone(old)
            part["metadata"]["managedFields"] = new["metadata"].get("managedFields", [])
            part.pop("status", None)
            return part | ({"status": new["status"]} if "status" in new else {})
        if resource.has_status:
            new.pop("status", None)
            if "status" in old:
                new["status"] = clone(old["status"])
        return new

    def _put(self, resource: ResourceType, obj: Obj, *, dry_run: bool) -> Obj:
        if not obj["metadata"].get("finalizers"):
            obj["metadata"].pop("finalizers", None)
        if dry_run:
            return obj
        if is_deleting(obj) and not pending_finalizers(obj) and resource.kind not in ("Pod", "Namespace"):
            namespace = obj["metadata"].get("namespace", "")
            return self.store.remove(resource, namespace, name_of(obj)) or obj
        stored = self.store.replace(resource, obj)
        self._after(resource)
        return stored

    def _after(self, resource: ResourceType) -> None:
        if resource is CRDS:
            self.registry.set_custom(self.store.select(CRDS))

    def scale(self, resource: ResourceType, namespace: str, name: str, replicas: int, options: WriteOptions) -> Obj:
        """The scale subresource: change nothing but `spec.replicas`."""
        old = self.store.get(resource, namespace, name)
        new: Obj = clone(old)
        new["spec"]["replicas"] = replicas
        return self.commit(resource, old, new, options)


def pending_finalizers(obj: Obj) -> list[str]:
    return list(obj["metadata"].get("finalizers") or [])


def rules_of(resource: ResourceType) -> MergeRules:
    return MergeRules(resource.kind, resource.custom)


def apply_secret_strings(config: Obj) -> None:
    """Turn `stringData` into `data` before ownership is computed: `data` is what is stored and owned."""
    kind = config.get("type")
    apply_defaults(SECRETS, config)
    if kind is None:
        config.pop("type", None)


def reset_unwritable(resource: ResourceType, config: Obj, subresource: str) -> None:
    """An applied configuration owns no field that its endpoint does not write."""
    if subresource == "status":
        config.pop("spec", None)
    elif resource.has_status:
        config.pop("status", None)


def patched(resource: ResourceType, old: Obj, document: Any, media_type: str) -> Obj:
    """`old` after a JSON, merge or strategic merge patch."""
    if media_type == "application/json-patch+json":
        return json_patch(old, document)
    if not isinstance(document, Mapping):
        raise errors.bad_request("the patch is not an object")
    if media_type == "application/merge-patch+json":
        return merge_patch(old, document)  # type: ignore[no-any-return]
    if media_type == "application/strategic-merge-patch+json" and not resource.custom:
        return strategic_merge(clone(old), dict(document), rules_of(resource))
    raise errors.unsupported_media_type(media_type)
