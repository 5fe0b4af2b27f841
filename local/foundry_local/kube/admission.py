"""What happens to an object before it is stored: identity, namespace, defaults, validation, admission plug-ins."""

import itertools
from typing import Any

from foundry_local.kube import errors
from foundry_local.kube.defaults import apply_defaults
from foundry_local.kube.resources import NAMESPACES, SERVICE_ACCOUNTS, SERVICES, ResourceType
from foundry_local.kube.store import Store
from foundry_local.kube.types import Obj, clone, dig, is_deleting, name_of
from foundry_local.kube.validation import validate


def without_nulls(value: Any) -> Any:
    """Drop null fields, as decoding into typed structures does."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


class Admission:
    """Turns the body of a request into an object that may be stored, or refuses it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._cluster_ips = itertools.count(10)

    def admit(self, resource: ResourceType, namespace: str, body: Any) -> Obj:
        """The body as an object of this resource in this namespace."""
        if not isinstance(body, dict):
            raise errors.bad_request("the body of the request is not an object")
        obj: Obj = without_nulls(body) if not resource.custom else clone(body)
        obj.setdefault("apiVersion", resource.api_version)
        obj.setdefault("kind", resource.kind)
        if (obj["apiVersion"], obj["kind"]) != (resource.api_version, resource.kind):
            raise errors.bad_request(
                f"the API version in the data ({obj['apiVersion']}, {obj['kind']}) does not match "
                f"the expected API version ({resource.api_version}, {resource.kind})"
            )
        metadata = obj.setdefault("metadata", {})
        if not isinstance(metadata, dict):
            raise errors.bad_request("metadata is not an object")
        self._set_namespace(resource, namespace, metadata)
        return obj

    def _set_namespace(self, resource: ResourceType, namespace: str, metadata: Obj) -> None:
        if not resource.namespaced:
            metadata.pop("namespace", None)
        elif metadata.setdefault("namespace", namespace) != namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )

    def check_namespace(self, resource: ResourceType, namespace: str) -> None:
        if not resource.namespaced:
            return
        found = self.store.peek(NAMESPACES, "", namespace)
        if found is None:
            raise errors.not_found(NAMESPACES, namespace)
        if is_deleting(found):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise errors.forbidden(resource, "", why)

    def prepare(self, resource: ResourceType, obj: Obj, old: Obj | None = None) -> None:
        """Defaults, validation and what admission plug-ins do."""
        try:
            if not isinstance(obj.get("spec", {}), dict):
                raise errors.bad_request("spec is not an object")
            apply_defaults(resource, obj)
            validate(resource, obj, old)
        except (AttributeError, TypeError, KeyError, ValueError) as problem:
            text = f"{resource.kind} in version {resource.version!r} cannot be handled as a {resource.kind}"
            raise errors.bad_request(f"{text}: {problem}") from problem
        if resource is SERVICES:
            self._assign_cluster_ip(obj, old)
        if resource.kind == "Pod" and old is None:
            self._check_service_account(resource, obj)

    def _assign_cluster_ip(self, service: Obj, old: Obj | None) -> None:
        spec = service["spec"]
        if "clusterIP" not in spec and spec["type"] != "ExternalName":
            kept = dig(old, "spec", "clusterIP") if old else None
            taken = {dig(item, "spec", "clusterIP") for item in self.store.select(SERVICES)}
            free = (f"10.96.{number // 250}.{number % 250 + 1}" for number in self._cluster_ips)
            spec["clusterIP"] = kept or next(address for address in free if address not in taken)
        if "clusterIP" in spec:
            spec["clusterIPs"] = [spec["clusterIP"]]

    def _check_service_account(self, resource: ResourceType, pod: Obj) -> None:
        namespace, account = pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
        if self.store.peek(SERVICE_ACCOUNTS, namespace, account) is None:
            why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
            raise errors.forbidden(resource, name_of(pod), why)
