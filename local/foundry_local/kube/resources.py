"""Which resources the simulated API server serves, and the discovery documents that say so."""

from collections.abc import Iterable
from dataclasses import dataclass

from foundry_local.kube.types import Obj

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclass(frozen=True, slots=True)
class ResourceType:
    """One resource of one group and version; `key` identifies its stored objects across versions."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    has_status: bool = False
    subresources: tuple[str, ...] = ()
    custom: bool = False
    singular: str = ""

    @property
    def key(self) -> str:
        return f"{self.group}/{self.plural}"

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


def _type(api_version: str, plural: str, kind: str, flags: str = "n", short: str = "", sub: str = "") -> ResourceType:
    """`flags`: n namespaced, s has a status subresource."""
    group, _, version = api_version.rpartition("/")
    return ResourceType(
        group, version, plural, kind, "n" in flags, tuple(short.split()), "s" in flags, tuple(sub.split())
    )


NAMESPACES = _type("v1", "namespaces", "Namespace", "s", "ns", "finalize")
NODES = _type("v1", "nodes", "Node", "s", "no")
PODS = _type("v1", "pods", "Pod", "ns", "po", "log eviction binding")
SERVICES = _type("v1", "services", "Service", "ns", "svc", "proxy")
ENDPOINTS = _type("v1", "endpoints", "Endpoints", "n", "ep")
EVENTS = _type("v1", "events", "Event", "n", "ev")
SECRETS = _type("v1", "secrets", "Secret")
CONFIG_MAPS = _type("v1", "configmaps", "ConfigMap", "n", "cm")
SERVICE_ACCOUNTS = _type("v1", "serviceaccounts", "ServiceAccount", "n", "sa", "token")
DEPLOYMENTS = _type("apps/v1", "deployments", "Deployment", "ns", "deploy", "scale")
REPLICA_SETS = _type("apps/v1", "replicasets", "ReplicaSet", "ns", "rs", "scale")
JOBS = _type("batch/v1", "jobs", "Job", "ns")
CRDS = _type("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", "s", "crd crds")
ENDPOINT_SLICES = _type("discovery.k8s.io/v1", "endpointslices", "EndpointSlice")
LEASES = _type("coordination.k8s.io/v1", "leases", "Lease")

BUILTIN: tuple[ResourceType, ...] = (
    NAMESPACES, NODES, PODS, SERVICES, ENDPOINTS, EVENTS, SECRETS, CONFIG_MAPS, SERVICE_ACCOUNTS,
    DEPLOYMENTS, REPLICA_SETS, JOBS, CRDS, ENDPOINT_SLICES, LEASES,
    _type("v1", "persistentvolumeclaims", "PersistentVolumeClaim", "ns", "pvc"),
    _type("v1", "persistentvolumes", "PersistentVolume", "s", "pv"),
    _type("v1", "resourcequotas", "ResourceQuota", "ns", "quota"),
    _type("v1", "limitranges", "LimitRange", "n", "limits"),
    _type("apps/v1", "daemonsets", "DaemonSet", "ns", "ds"),
    _type("apps/v1", "statefulsets", "StatefulSet", "ns", "sts", "scale"),
    _type("batch/v1", "cronjobs", "CronJob", "ns", "cj"),
    _type("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "ns", "hpa"),
    _type("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", "ns", "pdb"),
    _type("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", "n", "netpol"),
    _type("networking.k8s.io/v1", "ingresses", "Ingress", "ns", "ing"),
    _type("rbac.authorization.k8s.io/v1", "roles", "Role"),
    _type("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding"),
    _type("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", ""),
    _type("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", ""),
    _type("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", "", "pc"),
    _type("storage.k8s.io/v1", "storageclasses", "StorageClass", "", "sc"),
    _type("node.k8s.io/v1", "runtimeclasses", "RuntimeClass", ""),
)  # fmt: skip


class ResourceRegistry:
    """Built-in types plus those that CustomResourceDefinitions add."""

    def __init__(self) -> None:
        self._types: dict[tuple[str, str, str], ResourceType] = {}
        for item in BUILTIN:
            self._types[(item.group, item.version, item.plural)] = item

    def find(self, group: str, version: str, plural: str) -> ResourceType | None:
        return self._types.get((group, version, plural))

    def by_key(self, key: str) -> ResourceType | None:
        group, _, plural = key.partition("/")
        return next((t for t in self._types.values() if (t.group, t.plural) == (group, plural)), None)

    def by_kind(self, api_version: str, kind: str) -> ResourceType | None:
        return next((t for t in self._types.values() if (t.api_version, t.kind) == (api_version, kind)), None)

    def all(self) -> Iterable[ResourceType]:
        return self._types.values()

    def set_custom(self, crds: Iterable[Obj]) -> None:
        """Make the custom types exactly those that the given definitions serve."""
        self._types = {key: item for key, item in self._types.items() if not item.custom}
        for crd in crds:
            for item in custom_types(crd):
                self._types.setdefault((item.group, item.version, item.plural), item)

    def core_versions(self) -> Obj:
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}

    def group_list(self) -> Obj:
        names = dict.fromkeys(item.group for item in self._types.values() if item.group)
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [self._group(name) for name in names]}

    def group(self, name: str) -> Obj | None:
        if not any(item.group == name for item in self._types.values()):
            return None
        return {"kind": "APIGroup", "apiVersion": "v1"} | self._group(name)

    def _group(self, name: str) -> Obj:
        versions = dict.fromkeys(item.version for item in self._types.values() if item.group == name)
        entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
        return {"name": name, "versions": entries, "preferredVersion": entries[0]}

    def resource_list(self, group: str, version: str) -> Obj | None:
        types = [item for item in self._types.values() if (item.group, item.version) == (group, version)]
        if not types:
            return None
        entries = [entry for item in types for entry in _discovery_entries(item)]
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": types[0].api_version,
            "resources": entries,
        }


def custom_types(crd: Obj) -> list[ResourceType]:
    """The types that one CustomResourceDefinition serves, its storage version first."""
    spec, names = crd["spec"], crd["spec"]["names"]
    versions = [version for version in spec["versions"] if version.get("served", True)]
    return [
        ResourceType(
            spec["group"],
            version["name"],
            names["plural"],
            names["kind"],
            spec.get("scope") == "Namespaced",
            tuple(names.get("shortNames") or ()),
            "status" in (version.get("subresources") or {}),
            custom=True,
            singular=names.get("singular", ""),
        )
        for version in sorted(versions, key=lambda version: not version.get("storage"))
    ]


_SUBRESOURCE_KINDS = {
    "log": ("Pod", ["get"]),
    "eviction": ("Eviction", ["create"]),
    "binding": ("Binding", ["create"]),
    "proxy": ("ServiceProxyOptions", ["create", "delete", "get", "patch", "update"]),
    "token": ("TokenRequest", ["create"]),
    "scale": ("Scale", ["get", "patch", "update"]),
    "finalize": ("Namespace", ["update"]),
}


def _discovery_entries(item: ResourceType) -> list[Obj]:
    singular = item.singular or item.kind.lower()
    entry: Obj = {"name": item.plural, "singularName": singular, "namespaced": item.namespaced}
    entry |= {"kind": item.kind, "verbs": list(_VERBS)}
    if item.short_names:
        entry["shortNames"] = list(item.short_names)
    entries = [entry]
    base = {"singularName": "", "namespaced": item.namespaced}
    if item.has_status:
        verbs = ["get", "patch", "update"]
        entries.append(base | {"name": f"{item.plural}/status", "kind": item.kind, "verbs": verbs})
    for sub in item.subresources:
        kind, verbs = _SUBRESOURCE_KINDS[sub]
        entries.append(base | {"name": f"{item.plural}/{sub}", "kind": kind, "verbs": list(verbs)})
    return entries
