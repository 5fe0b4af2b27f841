"""The defaults that the API server fills in, so that what is read back looks like the real thing."""

import base64
from typing import Any

from foundry_local.kube.resources import ResourceType
from foundry_local.kube.types import Obj, dig, name_of


def _fill(target: Obj, values: Obj) -> None:
    for key, value in values.items():
        target.setdefault(key, value)


def _default_probe(probe: Obj) -> None:
    values = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    _fill(probe, values)
    if "httpGet" in probe:
        _fill(probe["httpGet"], {"path": "/", "scheme": "HTTP"})


def _default_container(container: Obj) -> None:
    image = str(container.get("image", ""))
    tag = image.rsplit("/", 1)[-1]
    pull = "Always" if "@" not in image and (":" not in tag or tag.endswith(":latest")) else "IfNotPresent"
    _fill(container, {
        "imagePullPolicy": pull,
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    })  # fmt: skip
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        if probe in container:
            _default_probe(container[probe])
    resources = container["resources"]
    if limits := resources.get("limits"):
        _fill(resources.setdefault("requests", {}), limits)


def default_pod_spec(spec: Obj) -> None:
    _fill(spec, {
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    })  # fmt: skip
    for container in (spec.get("initContainers") or []) + (spec.get("containers") or []):
        _default_container(container)


def _pod(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    default_pod_spec(spec)
    _fill(spec, {"enableServiceLinks": True, "preemptionPolicy": "PreemptLowerPriority", "priority": 0})
    _fill(spec, {"serviceAccountName": "default", "serviceAccount": spec.get("serviceAccountName", "default")})
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(item.get("key") == key for item in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    obj.setdefault("status", {}).setdefault("phase", "Pending")
    obj["status"].setdefault("qosClass", qos_class(spec))


def qos_class(spec: Obj) -> str:
    """Guaranteed, Burstable or BestEffort by cpu and memory, as the kubelet computes it."""
    resources = [container.get("resources") or {} for container in spec.get("containers") or []]
    pairs = [(dig(r, "requests", n), dig(r, "limits", n)) for r in resources for n in ("cpu", "memory")]
    if not any(request or limit for request, limit in pairs):
        return "BestEffort"
    return "Guaranteed" if all(limit and request == limit for request, limit in pairs) else "Burstable"


def _deployment(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600})
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _fill(strategy.setdefault("rollingUpdate", {}), {"maxSurge": "25%", "maxUnavailable": "25%"})
    default_pod_spec(spec.setdefault("template", {}).setdefault("spec", {}))


def _replica_set(obj: Obj) -> None:
    obj.setdefault("spec", {}).setdefault("replicas", 1)
    default_pod_spec(obj["spec"].setdefault("template", {}).setdefault("spec", {}))


def _job(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, {"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed"})
    _fill(spec, {"suspend": False, "manualSelector": False, "podReplacementPolicy": "TerminatingOrFailed"})
    default_pod_spec(spec.setdefault("template", {}).setdefault("spec", {}))
    uid = obj["metadata"].get("uid")
    if uid and "selector" not in spec:
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
        for prefix in ("", "batch.kubernetes.io/"):
            labels |= {f"{prefix}controller-uid": uid, f"{prefix}job-name": name_of(obj)}


def _service(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, {"type": "ClusterIP", "sessionAffinity": "None"})
    _fill(spec, {"internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"})
    for port in spec.get("ports") or []:
        _fill(port, {"protocol": "TCP", "targetPort": port.get("port")})


def _secret(obj: Obj) -> None:
    obj.setdefault("type", "Opaque")
    plain: dict[str, Any] = obj.pop("stringData", None) or {}
    if plain:
        encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
        obj["data"] = (obj.get("data") or {}) | encoded


def _namespace(obj: Obj) -> None:
    obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    obj.setdefault("status", {}).setdefault("phase", "Active")
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name_of(obj)


def _custom_resource_definition(obj: Obj) -> None:
    names = obj["spec"]["names"]
    _fill(names, {"singular": names["kind"].lower(), "listKind": f"{names['kind']}List"})
    obj["spec"].setdefault("conversion", {"strategy": "None"})


_DEFAULTERS = {
    "Pod": _pod,
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "Job": _job,
    "Service": _service,
    "Secret": _secret,
    "Namespace": _namespace,
    "CustomResourceDefinition": _custom_resource_definition,
}


def apply_defaults(resource: ResourceType, obj: Obj) -> None:
    """Fill defaults in place. Call after validation of the shape, before storing."""
    if not resource.custom and (defaulter := _DEFAULTERS.get(resource.kind)):
        defaulter(obj)
