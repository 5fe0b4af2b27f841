"""The Deployment controller: replica sets by template hash, rolling updates, revisions, progress."""

import hashlib
import json
import math
from datetime import UTC, datetime
from typing import Any

from foundry_local.kube.owners import Controller, is_ready, owner_reference, replicas_of
from foundry_local.kube.resources import DEPLOYMENTS, PODS, REPLICA_SETS, ResourceType
from foundry_local.kube.types import (
    Obj,
    annotations_of,
    clone,
    condition,
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

REVISION = "deployment.kubernetes.io/revision"
HASH_LABEL = "pod-template-hash"
_HASH_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class Deployments(Controller):
    resource = DEPLOYMENTS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What `Progressing` was last judged by: a change of it is progress.
        self._seen: dict[str, tuple[str, int]] = {}

    def reconcile_one(self, obj: Obj) -> None:
        sets = self._sets(obj)
        current = self._current_set(obj, sets)
        others = [item for item in sets if uid_of(item) != uid_of(current)]
        if not dig(obj, "spec", "paused", default=False):
            self._roll(obj, current, others)
        self._prune(obj, others)
        self._write_status(obj, current)

    def _sets(self, deployment: Obj) -> list[Obj]:
        return [item for item in self.owned(REPLICA_SETS, deployment) if not is_deleting(item)]

    def _current_set(self, deployment: Obj, sets: list[Obj]) -> Obj:
        template_hash = hash_template(deployment["spec"]["template"])
        found = next((item for item in sets if labels_of(item).get(HASH_LABEL) == template_hash), None)
        newest = max((_revision(item) for item in sets), default=0)
        if found is None:
            newest += 1
            found = self._create_set(deployment, template_hash, newest)
        elif _revision(found) < newest:
            newest += 1
            self._set_revision(REPLICA_SETS, found, newest)
        self._set_revision(DEPLOYMENTS, deployment, newest)
        return found

    def _set_revision(self, resource: ResourceType, obj: Obj, revision: int) -> None:
        def edit(target: Obj) -> None:
            target["metadata"].setdefault("annotations", {})[REVISION] = str(revision)

        self.edit(obj, edit, resource)

    def _create_set(self, deployment: Obj, template_hash: str, revision: int) -> Obj:
        spec, namespace = deployment["spec"], namespace_of(deployment)
        template, selector = clone(spec["template"]), clone(spec["selector"])
        template.setdefault("metadata", {}).setdefault("labels", {})[HASH_LABEL] = template_hash
        selector.setdefault("matchLabels", {})[HASH_LABEL] = template_hash
        metadata: Obj = {"name": f"{name_of(deployment)}-{template_hash}", "namespace": namespace}
        metadata["labels"] = template["metadata"]["labels"]
        metadata["annotations"] = {REVISION: str(revision)}
        metadata["ownerReferences"] = [owner_reference(DEPLOYMENTS, deployment)]
        body = {"metadata": metadata, "spec": {"replicas": 0, "selector": selector, "template": template}}
        return self.writer.create(REPLICA_SETS, namespace, body)

    def _roll(self, deployment: Obj, current: Obj, others: list[Obj]) -> None:
        spec, wanted = deployment["spec"], replicas_of(deployment)
        old_total = sum(replicas_of(item) for item in others)
        if spec["strategy"]["type"] == "Recreate":
            self._recreate(deployment, current, others)
        elif old_total:
            surge, unavailable = rolling_limits(spec["strategy"].get("rollingUpdate") or {}, wanted)
            room = max(wanted + surge - old_total, 0)
            self._scale(deployment, current, max(min(wanted, room), min(replicas_of(current), wanted)))
            self._shrink(deployment, current, others, wanted - unavailable)
        else:
            self._scale(deployment, current, wanted)

    def _recreate(self, deployment: Obj, current: Obj, others: list[Obj]) -> None:
        for item in others:
            self._scale(deployment, item, 0)
        if not any(self.owned(PODS, item) for item in others):
            self._scale(deployment, current, replicas_of(deployment))

    def _shrink(self, deployment: Obj, current: Obj, others: list[Obj], min_available: int) -> None:
        """Scale old sets down as far as availability allows; their unready pods go first, at no cost."""
        available = self._available(current) + sum(self._available(item) for item in others)
        for item in sorted(others, key=_revision):
            ready = self._available(item)
            unready = max(replicas_of(item) - ready, 0)
            spare = max(min(ready, available - min_available), 0)
            available -= spare
            self._scale(deployment, item, max(replicas_of(item) - unready - spare, 0))

    def _available(self, replica_set: Obj) -> int:
        return sum(is_ready(pod) and not is_deleting(pod) for pod in self.owned(PODS, replica_set))

    def _scale(self, deployment: Obj, replica_set: Obj, replicas: int) -> None:
        now = self.store.peek(REPLICA_SETS, namespace_of(replica_set), name_of(replica_set))
        if now is None or replicas_of(now) == replicas:
            return

        def edit(target: Obj) -> None:
            target["spec"]["replicas"] = replicas
            target["metadata"]["generation"] = target["metadata"].get("generation", 1) + 1

        up = "up" if replicas > replicas_of(now) else "down"
        message = f"Scaled {up} replica set {name_of(now)} from {replicas_of(now)} to {replicas}"
        self.event(deployment, "ScalingReplicaSet", message)
        self.edit(now, edit, REPLICA_SETS)

    def _prune(self, deployment: Obj, others: list[Obj]) -> None:
        """Keep `revisionHistoryLimit` drained replica sets."""
        drained = [item for item in others if not replicas_of(item) and not self.owned(PODS, item)]
        limit = int(deployment["spec"].get("revisionHistoryLimit", 10))
        for item in sorted(drained, key=_revision)[: max(len(drained) - limit, 0)]:
            self.deleter.delete(REPLICA_SETS, namespace_of(item), name_of(item))

    def _write_status(self, deployment: Obj, current: Obj) -> None:
        pods = [pod for item in self._sets(deployment) for pod in self.owned(PODS, item) if not is_deleting(pod)]
        updated = [pod for pod in self.owned(PODS, current) if not is_deleting(pod)]
        ready, wanted = sum(is_ready(pod) for pod in pods), replicas_of(deployment)
        complete = sum(is_ready(pod) for pod in updated) == wanted == len(pods)
        counts = {"replicas": len(pods), "updatedReplicas": len(updated), "readyReplicas": ready}
        counts |= {"availableReplicas": ready, "unavailableReplicas": max(wanted - ready, 0)}

        def edit(target: Obj) -> None:
            status = target.setdefault("status", {})
            status["observedGeneration"] = target["metadata"].get("generation", 1)
            for key, value in counts.items():
                status.pop(key, None)
                if value:
                    status[key] = value
            _write_available(target, ready)
            self._write_progressing(target, name_of(current), ready, complete=complete)

        self.edit(deployment, edit)

    def _write_progressing(self, target: Obj, set_name: str, ready: int, *, complete: bool) -> None:
        """`lastUpdateTime` moves with the replica set and the number of ready pods: that is what progress means."""
        moved = self._seen.get(uid_of(target)) != (set_name, ready)
        self._seen[uid_of(target)] = (set_name, ready)
        before = condition(target, "Progressing")
        if complete:
            status, reason = "True", "NewReplicaSetAvailable"
            message = f'ReplicaSet "{set_name}" has successfully progressed.'
        elif before and not moved and self._is_late(target, before):
            status, reason = "False", "ProgressDeadlineExceeded"
            message = f'ReplicaSet "{set_name}" has timed out progressing.'
        else:
            status, reason, message = "True", "ReplicaSetUpdated", f'ReplicaSet "{set_name}" is progressing.'
        moved = moved or before is None or before.get("reason") != reason
        set_condition(target, "Progressing", status, reason, message)
        current = condition(target, "Progressing")
        if current is not None and (moved or "lastUpdateTime" not in current):
            current["lastUpdateTime"] = now_text()

    def _is_late(self, target: Obj, before: Obj) -> bool:
        if before.get("reason") == "ProgressDeadlineExceeded":
            return True
        age_s = (datetime.now(UTC) - parse_time(before["lastUpdateTime"])).total_seconds()
        return age_s > float(target["spec"]["progressDeadlineSeconds"]) / self.speed


def _write_available(target: Obj, ready: int) -> None:
    wanted, strategy = replicas_of(target), target["spec"]["strategy"]
    rolling = strategy.get("rollingUpdate")
    needed = wanted - (rolling_limits(rolling, wanted)[1] if rolling else 0)
    if ready >= needed:
        set_condition(target, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        message = "Deployment does not have minimum availability."
        set_condition(target, "Available", "False", "MinimumReplicasUnavailable", message)


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


def _revision(obj: Obj) -> int:
    return int(annotations_of(obj).get(REVISION, 0))
