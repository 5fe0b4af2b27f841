"""What a Deployment and its pods, as the Kubernetes API shows them, say about an engine that is starting."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

Obj = dict[str, Any]
# An autoscaler may be adding a node; a registry may be having a moment.
UNSCHEDULABLE_GRACE_MS = 120_000
IMAGE_GRACE_MS = 60_000
_MAX_CRASHES = 3
_BAD_IMAGE = {"ErrImagePull", "ImagePullBackOff"}
_HOPELESS = {"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError",
             "RunContainerError"}  # fmt: skip


class Progress(BaseModel):
    """``failed`` and ``unschedulable`` are final, with the reason in ``detail``."""

    status: Literal["waiting", "ready", "failed", "unschedulable"]
    detail: str
    ready: int = 0


def progress_of(deployment: Obj | None, pods: Sequence[Obj], now_ms: int) -> Progress:
    """Where the roll-out is. A pod that waits is given time before it counts as lost."""
    if deployment is None:
        return Progress(status="failed", detail="The deployment was removed from the cluster.")
    alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    for pod in alive:
        lost = _lost(pod, now_ms)
        if lost:
            return lost
    return _rollout(deployment, alive)


def _rollout(deployment: Obj, pods: Sequence[Obj]) -> Progress:
    status, wanted = deployment.get("status") or {}, int(deployment["spec"].get("replicas", 1))
    ready = min(int(status.get("readyReplicas", 0)), int(status.get("updatedReplicas", 0)))
    current = int(status.get("observedGeneration", 0)) >= int(deployment["metadata"].get("generation", 1))
    if current and ready >= wanted:
        return Progress(status="ready", detail=f"{ready} of {wanted} replicas are ready.", ready=ready)
    doing = "; ".join(sorted({_doing(pod) for pod in pods} - {""})[:3])
    detail = f"{ready} of {wanted} replicas are ready" + (f"; {doing}" if doing else "")
    return Progress(status="waiting", detail=detail, ready=ready)


def _lost(pod: Obj, now_ms: int) -> Progress | None:
    """Why this pod will never be ready, or None."""
    unschedulable = _unschedulable(pod, now_ms)
    if unschedulable:
        return Progress(status="unschedulable", detail=unschedulable)
    reason = _container_failure(pod, now_ms) or _pod_failure(pod)
    return Progress(status="failed", detail=f"Pod {pod['metadata']['name']}: {reason}") if reason else None


def _unschedulable(pod: Obj, now_ms: int) -> str | None:
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            since = _ms(condition.get("lastTransitionTime")) or _created_ms(pod)
            if now_ms - since >= UNSCHEDULABLE_GRACE_MS:
                return f"No node can take a pod: {_short(condition.get('message'))}"
    return None


def _container_failure(pod: Obj, now_ms: int) -> str | None:
    for status in _container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), _short(waiting.get("message"))
        if reason in _HOPELESS or (reason in _BAD_IMAGE and now_ms - _created_ms(pod) >= IMAGE_GRACE_MS):
            return f"{reason}: {message}"
        crash = _crash(status)
        if crash:
            return crash
    return None


def _crash(status: Obj) -> str | None:
    """An engine that was killed for memory, or that keeps ending."""
    states = (status.get("state") or {}, status.get("lastState") or {})
    ended = next((state["terminated"] for state in states if state.get("terminated")), None)
    if ended is None:
        return None
    if ended.get("reason") == "OOMKilled":
        return "OOMKilled: the engine used more memory than its node allows"
    if int(status.get("restartCount", 0)) < _MAX_CRASHES:
        return None
    return f"the engine ended {status['restartCount']} times, last with exit code {ended.get('exitCode')}: " + _short(
        ended.get("message") or ended.get("reason")
    )


def _pod_failure(pod: Obj) -> str | None:
    status = pod.get("status") or {}
    if status.get("phase") != "Failed" or status.get("reason") in {"Evicted", "NodeLost", "Preempting"}:
        return None  # what the node did to it, the ReplicaSet mends
    return f"{status.get('reason', 'Failed')}: {_short(status.get('message'))}"


def _container_statuses(pod: Obj) -> list[Obj]:
    status = pod.get("status") or {}
    found: list[Obj] = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
    return found


def _doing(pod: Obj) -> str:
    for status in _container_statuses(pod):
        state = status.get("state") or {}
        if reason := (state.get("waiting") or {}).get("reason"):
            return str(reason)
        if "running" in state and not status.get("ready"):
            return "loading the model"
    return "scheduling" if not (pod.get("spec") or {}).get("nodeName") else ""


def _created_ms(pod: Obj) -> int:
    return _ms(pod["metadata"].get("creationTimestamp")) or 0


def _ms(timestamp: str | None) -> int | None:
    return int(datetime.fromisoformat(timestamp).timestamp() * 1000) if timestamp else None


def _short(text: object) -> str:
    return " ".join(str(text or "no message").split())[:300]
