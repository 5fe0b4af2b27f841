"""The Deployment, ReplicaSet and Job controllers. Each reconcile pass is level-triggered and idempotent."""

import hashlib
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime

from foundry_local.kube.deletion import DeleteOptions, Deleter
from foundry_local.kube.errors import ApiError
from foundry_local.kube.events import Recorder
from foundry_local.kube.resources import DEPLOYMENTS, JOBS, PODS, REPLICA_SETS, ResourceType
from foundry_local.kube.selectors import label_selector
from foundry_local.kube.store import Store
from foundry_local.kube.types import (
    Obj,
    annotations_of,
    clone,
    condition,
    controller_of,
    dig,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    now_text,
    parse_time,
    set_condition,
    uid_of,
)
from foundry_local.kube.writes import Writer

REVISION = "deployment.kubernetes.io/revision"
HASH_LABEL = "pod-template-hash"
_HASH_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class Workloads:
    """Reconciles workload objects into pods. `speed` shortens the deadlines of manifests."""

    def __init__(self, store: Store, writer: Writer, deleter: Deleter, recorder: Recorder, speed: float = 1.0) -> None:
        self.store = store
        self.writer = writer
        self.deleter = deleter
        self.recorder = recorder
        self.speed = speed

    def reconcile(self) -> None:
        for deployment in self.store.select(DEPLOYMENTS):
            self._guard(DEPLOYMENTS, deployment, self._deployment)
        for replica_set in self.store.select(REPLICA_SETS):
            self._guard(REPLICA_SETS, replica_set, self._replica_set)
        for job in self.store.select(JOBS):
            self._guard(JOBS, job, self._job)

    def _guard(self, resource: ResourceType, obj: Obj, reconcile: Callable[[Obj], None]) -> None:
        """A refused write (a terminating namespace, a missing service account) is an event, not a crash."""
        if is_deleting(obj):
            return
        try:
            reconcile(obj)
        except ApiError as problem:
            source = f"{resource.kind.lower()}-controller"
            self.recorder.record(obj, "FailedCreate", problem.message, source=source, warning=True)

    def owned(self, resource: ResourceType, owner: Obj) -> list[Obj]:
        return [
            item
            for item in self.store.select(resource, namespace_of(owner))
            if (reference := controller_of(item)) and reference["uid"] == uid_of(owner)
        ]

    def _deployment(self, deployment: Obj) -> None:
        sets = [item for item in self.owned(REPLICA_SETS, deployment) if not is_deleting(item)]
        current = self._current_set(deployment, sets)
        others = [item for item in sets if uid_of(item) != uid_of(current)]
        if not dig(deployment, "spec", "paused", default=False):
            self._roll(deployment, current, others)
        self._prune(deployment, others)
        self._deployment_status(deployment, current)

    def _current_set(self, deployment: Obj, sets: list[Obj]) -> Obj:
        template_hash = hash_template(deployment["spec"]["template"])
        found = next((item for item in sets if labels_of(item).get(HASH_LABEL) == template_hash), None)
        newest = max((_revision(item) for item in sets), default=0)
        if found is None:
            found = self._create_set(deployment, template_hash, newest + 1)
        elif _revision(found) < newest:
            self._set_revision(REPLICA_SETS, found, newest + 1)
            newest += 1
        self._set_revision(DEPLOYMENTS, deployment, max(newest, _revision(found)))
        return found

    def _set_revision(self, resource: ResourceType, obj: Obj, revision: int) -> None:
        def edit(target: Obj) -> None:
            target["metadata"].setdefault("annotations", {})[REVISION] = str(revision)

        self.store.mutate(resource, namespace_of(obj), name_of(obj), edit)

    def _create_set(self, deployment: Obj, template_hash: str, revision: int) -> Obj:
        spec, namespace = deployment["spec"], namespace_of(deployment)
        template = clone(spec["template"])
        template["metadata"].setdefault("labels", {})[HASH_LABEL] = template_hash
        selector = clone(spec["selector"])
        selector.setdefault("matchLabels", {})[HASH_LABEL] = template_hash
        metadata: Obj = {"name": f"{name_of(deployment)}-{template_hash}", "namespace": namespace}
        metadata["labels"] = template["metadata"]["labels"]
        metadata["annotations"] = {REVISION: str(revision)}
        metadata["ownerReferences"] = [owner_reference(DEPLOYMENTS, deployment)]
        body = {"metadata": metadata, "spec": {"replicas": 0, "selector": selector, "template": template}}
        return self.writer.create(REPLICA_SETS, namespace, body)

    def _roll(self, deployment: Obj, current: Obj, others: list[Obj]) -> None:
        spec = deployment["spec"]
        wanted = int(spec["replicas"])
        if spec["strategy"]["type"] == "Recreate":
            for item in others:
                self._scale(deployment, item, 0)
            gone = not any(self._pods(item) for item in others)
            self._scale(deployment, current, wanted if gone else _replicas(current))
            return
        surge, unavailable = rolling_limits(spec["strategy"].get("rollingUpdate") or {}, wanted)
        old_total = sum(_replicas(item) for item in others)
        room = wanted + surge - old_total
        if others and old_total:
            self._scale(deployment, current, max(min(wanted, room), min(_replicas(current), wanted)))
            self._shrink(deployment, current, others, wanted - unavailable)
        else:
            self._scale(deployment, current, wanted)

    def _shrink(self, deployment: Obj, current: Obj, others: list[Obj], min_available: int) -> None:
        """Scale old sets down as far as availability allows; their unready pods go first, at no cost."""
        available = len(self._available(current)) + sum(len(self._available(item)) for item in others)
        for item in sorted(others, key=_revision):
            ready = len(self._available(item))
            unready = _replicas(item) - ready
            may_go = unready + max(min(ready, available - min_available), 0)
            if may_go > 0:
                available -= max(may_go - unready, 0)
                self._scale(deployment, item, max(_replicas(item) - may_go, 0))

    def _available(self, replica_set: Obj) -> list[Obj]:
        return [pod for pod in self._pods(replica_set) if is_ready(pod) and not is_deleting(pod)]

    def _pods(self, replica_set: Obj) -> list[Obj]:
        return self.owned(PODS, replica_set)

    def _scale(self, deployment: Obj, replica_set: Obj, replicas: int) -> None:
        now = self.store.peek(REPLICA_SETS, namespace_of(replica_set), name_of(replica_set))
        if now is None or _replicas(now) == replicas:
            return

        def edit(target: Obj) -> None:
            target["spec"]["replicas"] = replicas
            target["metadata"]["generation"] = target["metadata"].get("generation", 1) + 1

        up = "up" if replicas > _replicas(now) else "down"
        message = f"Scaled {up} replica set {name_of(now)} from {_replicas(now)} to {replicas}"
        self.recorder.record(deployment, "ScalingReplicaSet", message, source="deployment-controller")
        self.store.mutate(REPLICA_SETS, namespace_of(now), name_of(now), edit)

    def _prune(self, deployment: Obj, others: list[Obj]) -> None:
        """Keep `revisionHistoryLimit` drained replica sets."""
        drained = [item for item in others if not _replicas(item) and not self._pods(item)]
        limit = int(deployment["spec"].get("revisionHistoryLimit", 10))
        for item in sorted(drained, key=_revision)[: max(len(drained) - limit, 0)]:
            self.deleter.delete(REPLICA_SETS, namespace_of(item), name_of(item))

    def _deployment_status(self, deployment: Obj, current: Obj) -> None:
        sets = [item for item in self.owned(REPLICA_SETS, deployment) if not is_deleting(item)]
        pods = [pod for item in sets for pod in self._pods(item) if not is_deleting(pod)]
        updated = [pod for pod in self._pods(current) if not is_deleting(pod)]
        ready = [pod for pod in pods if is_ready(pod)]
        wanted = int(deployment["spec"]["replicas"])
        fresh = [pod for pod in updated if is_ready(pod)]
        complete = len(fresh) == wanted == len(pods)

        def edit(target: Obj) -> None:
            status = target.setdefault("status", {})
            status["observedGeneration"] = target["metadata"].get("generation", 1)
            counts = {"replicas": len(pods), "updatedReplicas": len(updated), "readyReplicas": len(ready)}
            counts |= {"availableReplicas": len(ready), "unavailableReplicas": max(wanted - len(ready), 0)}
            for key, value in counts.items():
                status.pop(key, None)
                if value:
                    status[key] = value
            self._deployment_conditions(target, len(ready), complete, name_of(current))

        self.store.mutate(DEPLOYMENTS, namespace_of(deployment), name_of(deployment), edit)

    def _deployment_conditions(self, target: Obj, ready: int, complete: bool, set_name: str) -> None:
        wanted = int(target["spec"]["replicas"])
        rolling = target["spec"]["strategy"].get("rollingUpdate") or {}
        _, unavailable = rolling_limits(rolling, wanted)
        needed = wanted - unavailable if rolling else wanted
        if ready >= needed:
            message = "Deployment has minimum availability."
            set_condition(target, "Available", "True", "MinimumReplicasAvailable", message)
        else:
            message = "Deployment does not have minimum availability."
            set_condition(target, "Available", "False", "MinimumReplicasUnavailable", message)
        if complete:
            message = f'ReplicaSet "{set_name}" has successfully progressed.'
            _progress(target, "True", "NewReplicaSetAvailable", message, ready)
        elif self._is_late(target, ready, set_name):
            message = f'ReplicaSet "{set_name}" has timed out progressing.'
            _progress(target, "False", "ProgressDeadlineExceeded", message, ready)
        else:
            message = f'ReplicaSet "{set_name}" is progressing.'
            _progress(target, "True", "ReplicaSetUpdated", message, ready)

    def _is_late(self, target: Obj, ready: int, set_name: str) -> bool:
        current = condition(target, "Progressing")
        if current is None or set_name not in current.get("message", ""):
            return False
        if current["status"] == "False" and current.get("reason") == "ProgressDeadlineExceeded":
            return True
        age_s = (datetime.now(UTC) - parse_time(current["lastUpdateTime"])).total_seconds()
        moved = ready != int(annotations_of(target).get("foundry.dev/ready-seen", ready))
        return not moved and age_s > float(target["spec"]["progressDeadlineSeconds"]) / self.speed

    def _replica_set(self, replica_set: Obj) -> None:
        pods = self._pods(replica_set)
        active = [pod for pod in pods if not is_deleting(pod) and phase(pod) not in ("Failed", "Succeeded")]
        wanted = _replicas(replica_set)
        for _ in range(wanted - len(active)):
            pod = pod_from_template(replica_set["spec"]["template"], REPLICA_SETS, replica_set)
            created = self.writer.create(PODS, namespace_of(replica_set), pod)
            message = f"Created pod: {name_of(created)}"
            self.recorder.record(replica_set, "SuccessfulCreate", message, source="replicaset-controller")
        for pod in sorted(active, key=_keep_rank)[: max(len(active) - wanted, 0)]:
            self.deleter.delete(PODS, namespace_of(pod), name_of(pod))
            message = f"Deleted pod: {name_of(pod)}"
            self.recorder.record(replica_set, "SuccessfulDelete", message, source="replicaset-controller")
        self._replica_set_status(replica_set)

    def _replica_set_status(self, replica_set: Obj) -> None:
        pods = [pod for pod in self._pods(replica_set) if not is_deleting(pod)]
        ready = sum(is_ready(pod) for pod in pods)

        def edit(target: Obj) -> None:
            status: Obj = {"replicas": len(pods), "observedGeneration": target["metadata"].get("generation", 1)}
            if pods:
                status["fullyLabeledReplicas"] = len(pods)
            if ready:
                status |= {"readyReplicas": ready, "availableReplicas": ready}
            target["status"] = status

        self.store.mutate(REPLICA_SETS, namespace_of(replica_set), name_of(replica_set), edit)

    def _job(self, job: Obj) -> None:
        if _job_finished(job) or job["spec"].get("suspend"):
            return
        pods = self.owned(PODS, job)
        succeeded = sum(phase(pod) == "Succeeded" for pod in pods)
        failed = sum(phase(pod) == "Failed" for pod in pods)
        active = [pod for pod in pods if phase(pod) in ("Pending", "Running") and not is_deleting(pod)]
        wanted = int(job["spec"].get("completions", 1))
        restarts = sum(_restarts(pod) for pod in pods)
        exhausted = failed + restarts > int(job["spec"].get("backoffLimit", 6))
        missing = min(int(job["spec"].get("parallelism", 1)), wanted - succeeded) - len(active)
        if not exhausted and succeeded < wanted:
            for _ in range(missing):
                pod = pod_from_template(job["spec"]["template"], JOBS, job)
                created = self.writer.create(PODS, namespace_of(job), pod)
                message = f"Created pod: {name_of(created)}"
                self.recorder.record(job, "SuccessfulCreate", message, source="job-controller")
        for pod in active if exhausted else []:
            self.deleter.delete(PODS, namespace_of(pod), name_of(pod), DeleteOptions(grace_s=0))
        self._job_status(job, succeeded, failed, exhausted)

    def _job_status(self, job: Obj, succeeded: int, failed: int, exhausted: bool) -> None:
        pods = [pod for pod in self.owned(PODS, job) if phase(pod) in ("Pending", "Running")]
        done = succeeded >= int(job["spec"].get("completions", 1))

        def edit(target: Obj) -> None:
            status = target.setdefault("status", {})
            status.setdefault("startTime", now_text())
            counts = {"active": len(pods), "succeeded": succeeded, "failed": failed}
            counts["ready"] = sum(is_ready(pod) for pod in pods)
            status |= counts
            if done:
                status["completionTime"] = now_text()
                message = "Reached expected number of succeeded pods"
                set_condition(target, "SuccessCriteriaMet", "True", "CompletionsReached", message)
                set_condition(target, "Complete", "True", "CompletionsReached", message)
            elif exhausted:
                message = "Job has reached the specified backoff limit"
                set_condition(target, "FailureTarget", "True", "BackoffLimitExceeded", message)
                set_condition(target, "Failed", "True", "BackoffLimitExceeded", message)

        self.store.mutate(JOBS, namespace_of(job), name_of(job), edit)
        if done:
            self.recorder.record(job, "Completed", "Job completed", source="job-controller")


def hash_template(template: Obj) -> str:
    """The `pod-template-hash`: ten letters, a function of the template alone."""
    digest = int(hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest(), 16)
    letters = []
    for _ in range(10):
        digest, rest = divmod(digest, len(_HASH_ALPHABET))
        letters.append(_HASH_ALPHABET[rest])
    return "".join(letters)


def rolling_limits(rolling: Obj, wanted: int) -> tuple[int, int]:
    """(max surge, max unavailable) in pods; a percentage rounds up for surge and down for unavailable."""
    surge = _share(rolling.get("maxSurge", 0), wanted, up=True)
    unavailable = _share(rolling.get("maxUnavailable", 0), wanted, up=False)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def _share(value: int | str, total: int, *, up: bool) -> int:
    if isinstance(value, str) and value.endswith("%"):
        exact = float(value[:-1]) * total / 100
        return math.ceil(exact) if up else math.floor(exact)
    return int(value)


def _progress(target: Obj, status: str, reason: str, message: str, ready: int) -> None:
    """`lastUpdateTime` moves when the condition or the number of ready pods does: that is what progress means."""
    before = condition(target, "Progressing")
    seen = target["metadata"].setdefault("annotations", {})
    same = before is not None and (before["status"], before.get("reason"), before.get("message")) == (
        status,
        reason,
        message,
    )
    moved = not same or seen.get("foundry.dev/ready-seen") != str(ready)
    set_condition(target, "Progressing", status, reason, message)
    current = condition(target, "Progressing")
    if moved and current is not None:
        current["lastUpdateTime"] = now_text()
        seen["foundry.dev/ready-seen"] = str(ready)


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


def _replicas(replica_set: Obj) -> int:
    return int(dig(replica_set, "spec", "replicas", default=0))


def _revision(obj: Obj) -> int:
    return int(annotations_of(obj).get(REVISION, 0))


def _keep_rank(pod: Obj) -> tuple[bool, bool, int]:
    """Sorted ascending this is the order in which pods go: unscheduled, unready, youngest."""
    scheduled = bool(dig(pod, "spec", "nodeName"))
    return scheduled, is_ready(pod), -int(pod["metadata"]["resourceVersion"])


def _restarts(pod: Obj) -> int:
    return sum(item.get("restartCount", 0) for item in dig(pod, "status", "containerStatuses", default=[]))


def _job_finished(job: Obj) -> bool:
    return any((item := condition(job, kind)) and item["status"] == "True" for kind in ("Complete", "Failed"))


__all__ = ["Workloads", "hash_template", "is_ready", "label_selector", "owner_reference", "phase", "rolling_limits"]
