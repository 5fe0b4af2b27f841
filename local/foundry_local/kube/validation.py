"""What the API server refuses: shapes, names, references and immutable fields of the kinds that Foundry uses."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from foundry_local.kube import errors
from foundry_local.kube.quantity import parse_quantity
from foundry_local.kube.resources import ResourceType
from foundry_local.kube.selectors import label_selector
from foundry_local.kube.types import Obj, dig

Cause = tuple[str, str]

_DNS_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_DNS_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_LABEL_NAME = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
_LABEL_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_PATH_SEGMENT_NAMES = frozenset({"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"})
_LABEL_NAMED = frozenset({"Namespace", "Service"})
MAX_ANNOTATIONS_BYTES = 256 * 1024


def validate(resource: ResourceType, obj: Obj, old: Obj | None = None) -> None:
    """Check an object before it is stored; `old` is what it replaces.

    Raises:
        ApiError: 422 with one cause per offending field.
    """
    name = str(dig(obj, "metadata", "name", default=""))
    causes = list(_metadata_causes(resource, obj))
    if not resource.custom:
        causes += list(_shape_causes(resource, obj))
        if old is not None and not causes:
            causes += list(_immutable_causes(resource, obj, old))
    if causes:
        raise errors.invalid(resource, name, causes)


def _metadata_causes(resource: ResourceType, obj: Obj) -> Iterator[Cause]:
    metadata = obj["metadata"]
    name = str(metadata.get("name", ""))
    limit = 63 if resource.kind in _LABEL_NAMED else 253
    pattern = _DNS_LABEL if resource.kind in _LABEL_NAMED else _DNS_SUBDOMAIN
    if resource.kind in _PATH_SEGMENT_NAMES:
        if "/" in name or "%" in name or name in ("", ".", ".."):
            yield "metadata.name", f'Invalid value: "{name}": may not contain "/" or "%"'
    elif not name:
        yield "metadata.name", "Required value: name or generateName is required"
    elif len(name) > limit or not pattern.match(name):
        yield (
            "metadata.name",
            f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
            f"characters, '-' or '.', and must start and end with an alphanumeric character, "
            f"no longer than {limit}",
        )
    yield from _label_causes("metadata.labels", metadata.get("labels") or {})
    size = sum(len(str(k)) + len(str(v)) for k, v in (metadata.get("annotations") or {}).items())
    if size > MAX_ANNOTATIONS_BYTES:
        yield "metadata.annotations", f"Too long: may not be more than {MAX_ANNOTATIONS_BYTES} bytes"


def _label_causes(where: str, labels: Any) -> Iterator[Cause]:
    if not isinstance(labels, dict):
        yield where, "Invalid value: must be a map of strings"
        return
    for key, value in labels.items():
        prefix, _, name = key.rpartition("/")
        if len(name) > 63 or not _LABEL_NAME.match(name) or (prefix and not _DNS_SUBDOMAIN.match(prefix)):
            yield where, f'Invalid value: "{key}": not a valid label key'
        if not isinstance(value, str) or len(value) > 63 or not _LABEL_VALUE.match(value):
            yield where, f'Invalid value: "{value}": not a valid label value'


def _shape_causes(resource: ResourceType, obj: Obj) -> Iterator[Cause]:
    if check := _CHECKS.get(resource.kind):
        yield from check(obj)


def _pod_causes(obj: Obj) -> Iterator[Cause]:
    yield from _pod_spec_causes("spec", obj.get("spec"))


def _workload_causes(obj: Obj) -> Iterator[Cause]:
    spec = obj.get("spec") or {}
    selector, labels = spec.get("selector"), dig(spec, "template", "metadata", "labels", default={})
    if not selector:
        yield "spec.selector", "Required value"
    elif not label_selector(selector)(labels):
        yield "spec.template.metadata.labels", f"Invalid value: {labels}: `selector` does not match template `labels`"
    if not isinstance(spec.get("replicas", 1), int) or spec.get("replicas", 1) < 0:
        yield "spec.replicas", "Invalid value: must be greater than or equal to 0"
    yield from _pod_spec_causes("spec.template.spec", dig(spec, "template", "spec"))
    policy = dig(spec, "template", "spec", "restartPolicy", default="Always")
    if policy != "Always":
        yield "spec.template.spec.restartPolicy", f'Unsupported value: "{policy}": supported values: "Always"'


def _job_causes(obj: Obj) -> Iterator[Cause]:
    yield from _pod_spec_causes("spec.template.spec", dig(obj, "spec", "template", "spec"))
    policy = dig(obj, "spec", "template", "spec", "restartPolicy", default="Always")
    if policy not in ("OnFailure", "Never"):
        message = f'Required value: valid values: "OnFailure", "Never" (got "{policy}")'
        yield "spec.template.spec.restartPolicy", message


def _pod_spec_causes(where: str, spec: Any) -> Iterator[Cause]:
    containers = dig(spec, "containers")
    if not isinstance(containers, list) or not containers:
        yield f"{where}.containers", "Required value"
        return
    seen: set[str] = set()
    volumes = {item.get("name") for item in dig(spec, "volumes", default=[])}
    for position, container in enumerate(containers):
        at = f"{where}.containers[{position}]"
        name = container.get("name", "")
        if not _DNS_LABEL.match(str(name)):
            yield f"{at}.name", "Required value" if not name else f'Invalid value: "{name}"'
        if name in seen:
            yield f"{at}.name", f'Duplicate value: "{name}"'
        seen.add(name)
        yield from _container_causes(at, container, volumes)


def _container_causes(at: str, container: Obj, volumes: set[Any]) -> Iterator[Cause]:
    if not container.get("image"):
        yield f"{at}.image", "Required value"
    for mount in container.get("volumeMounts") or []:
        if mount.get("name") not in volumes:
            yield f"{at}.volumeMounts[0].name", f'Not found: "{mount.get("name")}"'
    for port in container.get("ports") or []:
        number = port.get("containerPort")
        if not isinstance(number, int) or not 0 < number < 65536:
            yield f"{at}.ports[0].containerPort", f"Invalid value: {number}: must be between 1 and 65535, inclusive"
    yield from _resource_causes(f"{at}.resources", container.get("resources") or {})


def _resource_causes(at: str, resources: Obj) -> Iterator[Cause]:
    limits = resources.get("limits") or {}
    for section in ("limits", "requests"):
        for name, text in (resources.get(section) or {}).items():
            try:
                amount = parse_quantity(text)
            except ValueError as problem:
                yield f"{at}.{section}.{name}", f"Invalid value: {text!r}: {problem}"
                continue
            if amount < 0:
                yield f"{at}.{section}.{name}", f"Invalid value: {text!r}: must be greater than or equal to 0"
            extended = "/" in name
            if extended and amount != int(amount):
                yield f"{at}.{section}.{name}", f"Invalid value: {text!r}: must be an integer"
            if extended and section == "requests" and limits.get(name) is None:
                yield f"{at}.limits", f"Required value: Limit must be set for non overcommitable resources ({name})"


def _service_causes(obj: Obj) -> Iterator[Cause]:
    spec = obj.get("spec") or {}
    ports = spec.get("ports") or []
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        yield "spec.ports", "Required value"
    for position, port in enumerate(ports):
        if not isinstance(port.get("port"), int) or not 0 < port["port"] < 65536:
            yield f"spec.ports[{position}].port", "Invalid value: must be between 1 and 65535, inclusive"
        if len(ports) > 1 and not port.get("name"):
            yield f"spec.ports[{position}].name", "Required value"


def _crd_causes(obj: Obj) -> Iterator[Cause]:
    spec = obj.get("spec") or {}
    expected = f"{dig(spec, 'names', 'plural')}.{spec.get('group')}"
    if obj["metadata"].get("name") != expected:
        yield "metadata.name", f'Invalid value: must be spec.names.plural+"."+spec.group ({expected})'
    if not dig(spec, "names", "kind"):
        yield "spec.names.kind", "Required value"
    if [version.get("storage") for version in spec.get("versions") or []].count(True) != 1:
        yield "spec.versions", "Invalid value: must have exactly one version marked as storage version"


_CHECKS: dict[str, Callable[[Obj], Iterator[Cause]]] = {
    "Pod": _pod_causes,
    "Deployment": _workload_causes,
    "ReplicaSet": _workload_causes,
    "Job": _job_causes,
    "Service": _service_causes,
    "CustomResourceDefinition": _crd_causes,
}

_IMMUTABLE: dict[str, tuple[tuple[str, ...], ...]] = {
    "Deployment": (("spec", "selector"),),
    "ReplicaSet": (("spec", "selector"),),
    "Job": (("spec", "template"), ("spec", "selector"), ("spec", "completions")),
    "RoleBinding": (("roleRef",),),
    "ClusterRoleBinding": (("roleRef",),),
}


def _immutable_causes(resource: ResourceType, obj: Obj, old: Obj) -> Iterator[Cause]:
    for path in _IMMUTABLE.get(resource.kind, ()):
        if dig(obj, *path) != dig(old, *path):
            yield ".".join(path), f"Invalid value: {dig(obj, *path)}: field is immutable"
    sealed = resource.kind in ("Secret", "ConfigMap") and old.get("immutable")
    if sealed and obj.get("data") != old.get("data"):
        yield "data", "Forbidden: field is immutable when `immutable` is set"
    if resource.kind == "Pod" and _frozen(obj) != _frozen(old):
        yield (
            "spec",
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
            "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
            "previously negative)",
        )


def _frozen(pod: Obj) -> Obj:
    """The part of a pod's spec that an update may not change."""
    mutable = {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "containers", "initContainers"}
    spec = {key: value for key, value in (pod.get("spec") or {}).items() if key not in mutable}
    for key in ("containers", "initContainers"):
        items = dig(pod, "spec", key, default=[])
        spec[key] = [{name: value for name, value in item.items() if name != "image"} for item in items]
    return spec
