"""The kubelets of all nodes: one worker per bound pod, graceful deletion, node health."""

import asyncio
import itertools
import logging
from datetime import UTC, datetime

from foundry_local.kube.deletion import DeleteOptions, Deleter
from foundry_local.kube.engines import TwinBuilder
from foundry_local.kube.events import Recorder
from foundry_local.kube.faults import FaultBoard
from foundry_local.kube.podworker import PodWorker
from foundry_local.kube.resources import NODES, PODS
from foundry_local.kube.scheduler import untolerated
from foundry_local.kube.store import Store
from foundry_local.kube.types import (
    Obj,
    condition,
    dig,
    is_deleting,
    name_of,
    namespace_of,
    now_text,
    parse_time,
    set_condition,
    uid_of,
)

logger = logging.getLogger(__name__)
NOT_READY_TAINT = "node.kubernetes.io/not-ready"


class Kubelet:
    """Starts and stops pod workers so that they match the bound pods of healthy nodes."""

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        deleter: Deleter,
        faults: FaultBoard,
        build_twin: TwinBuilder,
        speed: float,
    ) -> None:
        self.store = store
        self.workers: dict[str, PodWorker] = {}
        self._recorder = recorder
        self._deleter = deleter
        self._faults = faults
        self._build_twin = build_twin
        self._speed = speed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._addresses = itertools.count(2)
        self._resume: set[str] = set()

    def resume(self) -> None:
        """After a restore: pods that ran go on without loading again, unready until they are probed."""
        running = [pod for pod in self.store.select(PODS) if dig(pod, "status", "phase") == "Running"]
        self._resume = {uid_of(pod) for pod in running}
        for pod in running:
            self._mark_unready(pod, "ContainersNotReady")

    def reconcile(self) -> None:
        pods = {uid_of(pod): pod for pod in self.store.select(PODS) if dig(pod, "spec", "nodeName")}
        for uid in [uid for uid in self._tasks if uid not in pods]:
            self._cancel(uid)
        for uid, pod in pods.items():
            if self._faults.node_down(pod["spec"]["nodeName"]):
                self._cancel(uid)
            elif is_deleting(pod):
                self._end(uid, pod)
            elif uid not in self._tasks and dig(pod, "status", "phase") not in ("Succeeded", "Failed"):
                self._start(uid, pod)
        self._reconcile_nodes()

    def _start(self, uid: str, pod: Obj) -> None:
        node = self.store.peek(NODES, "", pod["spec"]["nodeName"])
        if node is None:
            return
        host_ip = next(
            (a["address"] for a in dig(node, "status", "addresses", default=[]) if a["type"] == "InternalIP"), ""
        )
        worker = PodWorker(
            pod,
            store=self.store,
            recorder=self._recorder,
            faults=self._faults,
            build_twin=self._build_twin,
            addresses=(host_ip, dig(pod, "status", "podIP") or self._new_address()),
            speed=self._speed,
            resume=uid in self._resume,
        )
        self._resume.discard(uid)
        self.workers[uid] = worker
        self._tasks[uid] = asyncio.get_running_loop().create_task(self._guard(worker), name=f"pod {worker.name}")

    def _new_address(self) -> str:
        taken = {dig(pod, "status", "podIP") for pod in self.store.select(PODS)}
        free = (f"10.244.{number // 250}.{number % 250 + 1}" for number in self._addresses)
        return next(address for address in free if address not in taken)

    async def _guard(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:
            logger.exception("the simulated kubelet failed on pod %s/%s", worker.namespace, worker.name)

    def _cancel(self, uid: str) -> None:
        task = self._tasks.pop(uid, None)
        self.workers.pop(uid, None)
        if task is not None:
            task.cancel()

    def _end(self, uid: str, pod: Obj) -> None:
        if uid not in self._ending:
            task = asyncio.get_running_loop().create_task(self._terminate(uid, pod), name=f"end {name_of(pod)}")
            self._ending[uid] = task
            task.add_done_callback(lambda _: self._ending.pop(uid, None))

    async def _terminate(self, uid: str, pod: Obj) -> None:
        """SIGTERM: requests in flight may finish within the grace period; then the pod object goes."""
        worker = self.workers.get(uid)
        if worker is not None:
            self._recorder.record(pod, "Killing", "Stopping container", source="kubelet")
            await worker.drain(float(pod["metadata"].get("deletionGracePeriodSeconds") or 0))
        task = self._tasks.get(uid)
        self._cancel(uid)
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)
        current = self.store.peek(PODS, namespace_of(pod), name_of(pod))
        if current is None or uid_of(current) != uid:
            return
        if not current["metadata"].get("finalizers"):
            self.store.remove(PODS, namespace_of(pod), name_of(pod))

    def worker_of(self, pod: Obj) -> PodWorker | None:
        return self.workers.get(uid_of(pod))

    def _reconcile_nodes(self) -> None:
        for node in self.store.select(NODES):
            down = self._faults.node_down(name_of(node))
            ready = condition(node, "Ready")
            if down != bool(ready and ready["status"] != "True"):
                self._set_node_ready(node, not down)
            if down:
                self._evict(node)

    def _set_node_ready(self, node: Obj, ready: bool) -> None:
        def edit(target: Obj) -> None:
            reason = "KubeletReady" if ready else "NodeStatusUnknown"
            message = "kubelet is posting ready status" if ready else "Kubelet stopped posting node status."
            set_condition(target, "Ready", "True" if ready else "Unknown", reason, message)
            taints = [item for item in dig(target, "spec", "taints", default=[]) if item["key"] != NOT_READY_TAINT]
            if not ready:
                added = {"key": NOT_READY_TAINT, "timeAdded": now_text()}
                taints += [added | {"effect": effect} for effect in ("NoSchedule", "NoExecute")]
            target.setdefault("spec", {})["taints"] = taints

        self.store.mutate(NODES, "", name_of(node), edit)
        what = "NodeReady" if ready else "NodeNotReady"
        self._recorder.record(node, what, f"Node {name_of(node)} status is now: {what}", source="node-controller")
        if not ready:
            self._mark_pods_unready(name_of(node))

    def _mark_pods_unready(self, node: str) -> None:
        for pod in self.store.select(PODS):
            if dig(pod, "spec", "nodeName") == node:
                self._mark_unready(pod, "NodeNotReady")

    def _mark_unready(self, pod: Obj, reason: str) -> None:
        def edit(target: Obj) -> None:
            set_condition(target, "Ready", "False", reason)

        self.store.mutate(PODS, namespace_of(pod), name_of(pod), edit)

    def _evict(self, node: Obj) -> None:
        """Pods leave a lost node after their toleration; what is already deleting is forced out."""
        taint = next((t for t in dig(node, "spec", "taints", default=[]) if t["key"] == NOT_READY_TAINT), None)
        if taint is None:
            return
        age_s = (datetime.now(UTC) - parse_time(taint["timeAdded"])).total_seconds()
        for pod in self.store.select(PODS):
            if dig(pod, "spec", "nodeName") != name_of(node):
                continue
            if is_deleting(pod) or age_s * self._speed > _toleration_s(pod, node):
                self._deleter.delete(PODS, namespace_of(pod), name_of(pod), DeleteOptions(grace_s=0))

    async def stop(self) -> None:
        """Stop every worker; the pods stay as they are in the store, to be resumed from a snapshot."""
        tasks = [*self._tasks.values(), *self._ending.values()]
        self._tasks.clear()
        self.workers.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _toleration_s(pod: Obj, node: Obj) -> float:
    """How long the pod stays on a lost node; forever where it tolerates that without a limit."""
    times = [
        item.get("tolerationSeconds", float("inf"))
        for item in dig(pod, "spec", "tolerations", default=[])
        if item.get("effect") in (None, "", "NoExecute") and item.get("key") in (NOT_READY_TAINT, None, "")
    ]
    if untolerated(pod, node, ("NoExecute",)) is not None:
        return 0.0
    return min(times, default=0.0)
