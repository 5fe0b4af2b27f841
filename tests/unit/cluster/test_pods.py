"""What the state of pods means: patience with what may mend itself, a plain word for what will not."""

from datetime import UTC, datetime
from typing import Any

import pytest

from functions.cluster.pods import IMAGE_GRACE_MS, UNSCHEDULABLE_GRACE_MS, progress_of

START_MS = 1_700_000_000_000
STAMP = datetime.fromtimestamp(START_MS / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def deployment(ready: int = 0, replicas: int = 2, observed: int = 1, updated: int | None = None) -> dict[str, Any]:
    status = {"readyReplicas": ready, "updatedReplicas": ready if updated is None else updated,
              "observedGeneration": observed}  # fmt: skip
    return {"metadata": {"generation": 1}, "spec": {"replicas": replicas}, "status": status}


def pod(container: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    status = {"containerStatuses": [container] if container else [], **more.pop("status", {})}
    return {"metadata": {"name": "p", "creationTimestamp": STAMP, **more}, "spec": {"nodeName": "n"}, "status": status}


def waits(reason: str) -> dict[str, Any]:
    return pod({"state": {"waiting": {"reason": reason, "message": "why"}}})


def crashed(restarts: int, reason: str = "Error") -> dict[str, Any]:
    ended = {"terminated": {"reason": reason, "exitCode": 1}}
    return pod({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended, "restartCount": restarts})


def unschedulable() -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/5 nodes",
                 "lastTransitionTime": STAMP}  # fmt: skip
    return {**pod(status={"conditions": [condition]}), "spec": {}}


@pytest.mark.parametrize(
    ("pods", "after_ms", "status", "word"),
    [
        ([waits("ContainerCreating")], 0, "waiting", "ContainerCreating"),
        ([waits("ErrImagePull")], IMAGE_GRACE_MS - 1, "waiting", "ErrImagePull"),
        ([waits("ImagePullBackOff")], IMAGE_GRACE_MS, "failed", "ImagePullBackOff: why"),
        ([waits("InvalidImageName")], 0, "failed", "InvalidImageName"),
        ([waits("CreateContainerConfigError")], 0, "failed", "CreateContainerConfigError"),
        ([crashed(2)], 0, "waiting", "CrashLoopBackOff"),
        ([crashed(3)], 0, "failed", "exit code 1"),
        ([crashed(1, "OOMKilled")], 0, "failed", "OOMKilled"),
        ([unschedulable()], UNSCHEDULABLE_GRACE_MS - 1, "waiting", "scheduling"),
        ([unschedulable()], UNSCHEDULABLE_GRACE_MS, "unschedulable", "0/5 nodes"),
        ([pod({"state": {"running": {}}, "ready": False})], 10**9, "waiting", "loading the model"),
        ([pod(status={"phase": "Failed", "reason": "Evicted"})], 0, "waiting", "0 of 2"),
        ([pod(status={"phase": "Failed", "reason": "UnexpectedAdmissionError"})], 0, "failed", "UnexpectedAdmission"),
        ([{**waits("InvalidImageName"), "metadata": {"name": "p", "deletionTimestamp": STAMP}}], 0, "waiting", "0 of"),
        ([], 0, "waiting", "0 of 2 replicas are ready"),
    ],
)
def test_pods(pods: list[dict[str, Any]], after_ms: int, status: str, word: str) -> None:
    found = progress_of(deployment(), pods, START_MS + after_ms)
    assert found.status == status and word in found.detail


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        (deployment(ready=2), "ready"),
        (deployment(ready=1), "waiting"),
        (deployment(ready=2, observed=0), "waiting"),  # counts of an older generation
        (deployment(ready=2, updated=1), "waiting"),  # one is still of the old template
        (None, "failed"),
    ],
)
def test_roll_out(shown: dict[str, Any] | None, status: str) -> None:
    assert progress_of(shown, [], START_MS).status == status


def test_one_lost_pod_is_enough() -> None:
    fine = pod({"state": {"running": {}}, "ready": True})
    assert progress_of(deployment(ready=1), [fine, crashed(5)], START_MS).status == "failed"
