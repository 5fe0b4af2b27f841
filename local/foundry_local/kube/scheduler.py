"""The scheduler: puts pending pods on nodes by requests, selectors, affinity and taints; never preempts."""

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

from foundry_local.kube.events import Recorder
from foundry_local.kube.quantity import parse_quantity
from foundry_local.kube.resources import NODES, PODS
from foundry_local.kube.store import Store
from foundry_local.kube.types import (
    Obj,
    condition,
    dig,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    set_condition,
)

Amounts = dict[str, Decimal]
_COMPRESSIBLE = ("cpu", "memory", "ephemeral-storage", "pods")


class Scheduler:
    """One pass binds every pod that fits; the rest stay Pending and say why."""

    def __init__(self, store: Store, recorder: Recorder) -> None:
        self.store = store
        self.recorder = recorder

    def reconcile(self) -> None:
        pending = [pod for pod in self.store.select(PODS) if _is_pending(pod)]
        if not pending:
            return
        nodes = self.store.select(NODES)
        used = self._usage()
        for pod in sorted(pending, key=lambda item: int(item["metadata"]["resourceVersion"])):
            self._schedule(pod, nodes, used)

    def _usage(self) -> dict[str, Amounts]:
        """Requested amounts by node, of pods that have not finished."""
        used: dict[str, Amounts] = {}
        for pod in self.store.select(PODS):
            node = dig(pod, "spec", "nodeName")
            if node and dig(pod, "status", "phase") not in ("Succeeded", "Failed"):
                _add(used.setdefault(node, {}), requests_of(pod))
        return used

    def _schedule(self, pod: Obj, nodes: list[Obj], used: dict[str, Amounts]) -> None:
        wanted = requests_of(pod)
        refusals: Counter[str] = Counter()
        fitting = []
        for node in nodes:
            reasons = refuse(pod, wanted, node, used.get(name_of(node), {}))
            refusals.update(reasons)
            if not reasons:
                fitting.append(node)
        if not fitting:
            self._report(pod, len(nodes), refusals)
            return
        # Most requested first: whole devices stay together for the pods that need many of them.
        best = max(fitting, key=lambda node: (_score(node, used.get(name_of(node), {}), wanted), name_of(node)))
        _add(used.setdefault(name_of(best), {}), wanted)
        self._bind(pod, name_of(best))

    def _bind(self, pod: Obj, node: str) -> None:
        def edit(target: Obj) -> None:
            target["spec"]["nodeName"] = node
            set_condition(target, "PodScheduled", "True")

        self.store.mutate(PODS, namespace_of(pod), name_of(pod), edit)
        message = f"Successfully assigned {namespace_of(pod)}/{name_of(pod)} to {node}"
        self.recorder.record(pod, "Scheduled", message, source="default-scheduler")

    def _report(self, pod: Obj, node_count: int, refusals: Counter[str]) -> None:
        if node_count:
            texts = [f"{count} {reason}" for reason, count in sorted(refusals.items())]
            message = f"0/{node_count} nodes are available: {', '.join(texts)}."
        else:
            message = "no nodes available to schedule pods"
        before = condition(pod, "PodScheduled")
        if before and before.get("message") == message:
            return

        def edit(target: Obj) -> None:
            set_condition(target, "PodScheduled", "False", "Unschedulable", message)

        self.store.mutate(PODS, namespace_of(pod), name_of(pod), edit)
        self.recorder.record(pod, "FailedScheduling", message, source="default-scheduler", warning=True)


def _is_pending(pod: Obj) -> bool:
    unbound = not dig(pod, "spec", "nodeName") and not is_deleting(pod)
    ours = dig(pod, "spec", "schedulerName", default="default-scheduler") in ("default-scheduler", "hami-scheduler")
    gates = dig(pod, "spec", "schedulingGates", default=[])
    return unbound and ours and not gates and dig(pod, "status", "phase") == "Pending"


def requests_of(pod: Obj) -> Amounts:
    """What a pod requests: the sum of its containers, at least its largest init container, and one pod slot."""
    total: Amounts = {}
    for container in pod["spec"].get("containers") or []:
        _add(total, _amounts(dig(container, "resources", "requests", default={})))
    for container in pod["spec"].get("initContainers") or []:
        for name, amount in _amounts(dig(container, "resources", "requests", default={})).items():
            total[name] = max(total.get(name, Decimal(0)), amount)
    total["pods"] = Decimal(1)
    return total


def _amounts(texts: Obj) -> Amounts:
    return {name: parse_quantity(text) for name, text in texts.items()}


def _add(total: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Decimal(0)) + amount


def refuse(pod: Obj, wanted: Amounts, node: Obj, used: Amounts) -> list[str]:
    """Why a pod cannot go to a node, in the scheduler's own words; the first filter that refuses speaks."""
    if dig(node, "spec", "unschedulable", default=False):
        return ["node(s) were unschedulable"]
    if taint := untolerated(pod, node, ("NoSchedule", "NoExecute")):
        value = f": {taint['value']}" if taint.get("value") else ": "
        return [f"node(s) had untolerated taint {{{taint['key']}{value}}}"]
    if not _matches_node(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    allocatable = _amounts(dig(node, "status", "allocatable", default={}))
    short = []
    for name, amount in sorted(wanted.items()):
        if amount and used.get(name, Decimal(0)) + amount > allocatable.get(name, Decimal(0)):
            short.append("Too many pods" if name == "pods" else f"Insufficient {name}")
    return short


def untolerated(pod: Obj, node: Obj, effects: Iterable[str]) -> Obj | None:
    """The first taint of these effects that the pod does not tolerate."""
    tolerations = dig(pod, "spec", "tolerations", default=[])
    for taint in dig(node, "spec", "taints", default=[]):
        if taint["effect"] in effects and not any(tolerates(item, taint) for item in tolerations):
            return dict(taint)
    return None


def tolerates(toleration: Obj, taint: Obj) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("operator") == "Exists":
        return not toleration.get("key") or toleration["key"] == taint["key"]
    return toleration.get("key") == taint["key"] and (toleration.get("value") or "") == (taint.get("value") or "")


def _matches_node(pod: Obj, node: Obj) -> bool:
    labels = labels_of(node)
    selector = dig(pod, "spec", "nodeSelector", default={})
    if any(labels.get(key) != value for key, value in selector.items()):
        return False
    required = dig(pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(_matches_term(term, node) for term in required.get("nodeSelectorTerms") or [])


def _matches_term(term: Obj, node: Obj) -> bool:
    rules = [(rule, labels_of(node)) for rule in term.get("matchExpressions") or []]
    rules += [(rule, {"metadata.name": name_of(node)}) for rule in term.get("matchFields") or []]
    return bool(rules) and all(_matches_rule(rule, values) for rule, values in rules)


def _matches_rule(rule: Obj, values: dict[str, str]) -> bool:
    key, operator, wanted = rule["key"], rule["operator"], rule.get("values") or []
    value = values.get(key)
    if operator == "In":
        return value in wanted
    if operator == "NotIn":
        return value not in wanted
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    if value is None or not wanted or not value.lstrip("-").isdigit():
        return False
    return int(value) > int(wanted[0]) if operator == "Gt" else int(value) < int(wanted[0])


def _score(node: Obj, used: Amounts, wanted: Amounts) -> float:
    """Mean share of the node's extended resources (else cpu and memory) in use after placement; CPU-only pods
    avoid nodes with devices."""
    allocatable = _amounts(dig(node, "status", "allocatable", default={}))
    devices = [name for name in allocatable if name not in _COMPRESSIBLE and "/" in name and allocatable[name]]
    asked = [name for name in devices if wanted.get(name)]
    if devices and not asked:
        return -1.0
    names = asked or ["cpu", "memory"]
    shares = [
        float((used.get(name, Decimal(0)) + wanted.get(name, Decimal(0))) / allocatable[name])
        for name in names
        if allocatable.get(name)
    ]
    return sum(shares) / len(shares) if shares else 0.0
