"""The status of a pod as its kubelet reports it."""

from dataclasses import dataclass, field
from uuid import uuid4

from foundry_local.kube.types import Obj, clone, now_text, set_condition

Exit = tuple[int, str, str]
"""Exit code, reason, message of a container that ended."""


@dataclass(slots=True)
class ContainerState:
    """Where the containers of a pod are; they share one fate here."""

    restarts: int = 0
    waiting: tuple[str, str] | None = ("ContainerCreating", "")
    started_at: str = ""
    ended: Exit | None = None
    last: Exit | None = None
    last_started_at: str = ""
    ready: bool = False
    passed_startup: bool = False
    container_id: str = field(default_factory=lambda: uuid4().hex * 2)

    def document(self) -> Obj:
        if self.waiting is not None:
            reason, message = self.waiting
            return {"waiting": {"reason": reason} | ({"message": message} if message else {})}
        if self.ended is not None:
            return {"terminated": _terminated(self.ended, self.started_at)}
        return {"running": {"startedAt": self.started_at}}

    def last_document(self) -> Obj:
        return {"terminated": _terminated(self.last, self.last_started_at)} if self.last else {}


def _terminated(ended: Exit, started_at: str) -> Obj:
    code, reason, message = ended
    found: Obj = {"exitCode": code, "reason": reason, "startedAt": started_at, "finishedAt": now_text()}
    return found | ({"message": message} if message else {})


def write_status(pod: Obj, phase: str, state: ContainerState, host_ip: str, pod_ip: str) -> None:
    """Bring the pod's status up to date, in place; unchanged parts keep their times."""
    status = pod.setdefault("status", {})
    status["phase"] = phase
    status.setdefault("startTime", now_text())
    status |= {"hostIP": host_ip, "hostIPs": [{"ip": host_ip}], "podIP": pod_ip, "podIPs": [{"ip": pod_ip}]}
    before = {item["name"]: item for item in status.get("containerStatuses") or []}
    status["containerStatuses"] = [
        _container_status(container, state, before.get(container["name"])) for container in pod["spec"]["containers"]
    ]
    _write_conditions(pod, phase, state)


def _container_status(container: Obj, state: ContainerState, before: Obj | None) -> Obj:
    running = state.waiting is None and state.ended is None
    document: Obj = {
        "name": container["name"],
        "image": container["image"],
        "imageID": f"docker.io/{container['image']}@sha256:{'0' * 64}" if state.started_at else "",
        "ready": state.ready,
        "started": running and state.passed_startup,
        "restartCount": state.restarts,
        "state": state.document(),
        "lastState": state.last_document(),
    }
    if state.started_at:
        document["containerID"] = f"containerd://{state.container_id}"
    if before is not None:
        _keep_times(document, before)
    return document


def _keep_times(document: Obj, before: Obj) -> None:
    """The same end reported again ended when it was first reported."""
    for part in ("state", "lastState"):
        new, old = document[part].get("terminated"), clone(before.get(part) or {}).get("terminated")
        if new and old and (new["startedAt"], new["exitCode"]) == (old["startedAt"], old["exitCode"]):
            new["finishedAt"] = old["finishedAt"]


def _write_conditions(pod: Obj, phase: str, state: ContainerState) -> None:
    done = phase in ("Succeeded", "Failed")
    set_condition(pod, "PodReadyToStartContainers", "False" if done else "True")
    set_condition(pod, "Initialized", "True", "PodCompleted" if phase == "Succeeded" else "")
    if state.ready:
        set_condition(pod, "Ready", "True")
        set_condition(pod, "ContainersReady", "True")
    else:
        reason = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "ContainersNotReady")
        names = " ".join(item["name"] for item in pod["spec"]["containers"])
        message = "" if done else f"containers with unready status: [{names}]"
        set_condition(pod, "Ready", "False", reason, message)
        set_condition(pod, "ContainersReady", "False", reason, message)
    set_condition(pod, "PodScheduled", "True")
