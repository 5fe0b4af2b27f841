"""How lists and maps merge: the merge keys, set lists and atomic maps of the API types that Foundry uses.

Kubernetes reads these facts from its OpenAPI schema (`x-kubernetes-list-type`, `-map-keys`, `-map-type`,
`x-kubernetes-patch-merge-key`). Here they are one table by field name; custom resources have atomic lists.
"""

from dataclasses import dataclass

from foundry_local.kube.types import Obj, Path

_APPLY_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "addresses": ("type",),
}
# Lists that only a strategic merge patch merges; server-side apply treats them as atomic.
_PATCH_ONLY_KEYS: dict[str, tuple[str, ...]] = {"taints": ("key", "effect")}
_KEY_DEFAULTS = {"protocol": "TCP"}
_SETS = frozenset({"finalizers"})
_ATOMIC_MAPS = frozenset({
    "selector", "nodeSelector", "labelSelector", "namespaceSelector", "podSelector", "secretKeyRef",
    "configMapKeyRef", "fieldRef", "resourceFieldRef", "involvedObject", "scaleTargetRef", "roleRef", "claimRef",
})  # fmt: skip
_CUSTOM_KEYS = frozenset({"ownerReferences"})


@dataclass(frozen=True, slots=True)
class MergeRules:
    """The merge rules of one kind. Paths are field names from the object's root, without list positions."""

    kind: str
    custom: bool = False

    def list_keys(self, path: Path, *, strategic: bool = False) -> tuple[str, ...]:
        """The fields that identify an item of the list at `path`; empty for an atomic or set list."""
        name = path[-1]
        if self.custom:
            return _APPLY_KEYS[name] if name in _CUSTOM_KEYS and path[0] == "metadata" else ()
        if name == "ports":
            return self._port_keys(path, strategic)
        if name == "addresses" and self.kind != "Node":
            return ()
        if strategic and name in _PATCH_ONLY_KEYS:
            return _PATCH_ONLY_KEYS[name]
        return _APPLY_KEYS.get(name, ())

    def _port_keys(self, path: Path, strategic: bool) -> tuple[str, ...]:
        if "containers" in path or "initContainers" in path:
            return ("containerPort",) if strategic else ("containerPort", "protocol")
        if self.kind == "Service":
            return ("port",) if strategic else ("port", "protocol")
        return ()

    def is_set(self, path: Path) -> bool:
        return path[-1] in _SETS and path[0] == "metadata"

    def is_atomic_map(self, path: Path) -> bool:
        return not self.custom and path[-1] in _ATOMIC_MAPS


def item_key(item: Obj, keys: tuple[str, ...]) -> tuple[tuple[str, object], ...] | None:
    """The identity of a list item, missing keys defaulted as the API defaults them; None where one lacks."""
    values = []
    for key in keys:
        value = item.get(key, _KEY_DEFAULTS.get(key))
        if value is None:
            return None
        values.append((key, value))
    return tuple(values)
