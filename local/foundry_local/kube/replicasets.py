"""The ReplicaSet controller: as many pods as replicas."""

from foundry_local.kube.owners import Controller, is_ready, phase, replicas_of
from foundry_local.kube.resources import PODS, REPLICA_SETS
from foundry_local.kube.types import Obj, dig, is_deleting, name_of, namespace_of


class ReplicaSets(Controller):
    resource = REPLICA_SETS

    def reconcile_one(self, obj: Obj) -> None:
        pods = self.owned(PODS, obj)
        active = [pod for pod in pods if not is_deleting(pod) and phase(pod) not in ("Failed", "Succeeded")]
        wanted = replicas_of(obj)
        for _ in range(wanted - len(active)):
            self.create_pod(obj, obj["spec"]["template"])
        for pod in sorted(active, key=_keep_rank)[: max(len(active) - wanted, 0)]:
            self.deleter.delete(PODS, namespace_of(pod), name_of(pod))
            self.event(obj, "SuccessfulDelete", f"Deleted pod: {name_of(pod)}")
        self._write_status(obj)

    def _write_status(self, replica_set: Obj) -> None:
        pods = [pod for pod in self.owned(PODS, replica_set) if not is_deleting(pod)]
        ready = sum(is_ready(pod) for pod in pods)

        def edit(target: Obj) -> None:
            status: Obj = {"replicas": len(pods), "observedGeneration": target["metadata"].get("generation", 1)}
            if pods:
                status["fullyLabeledReplicas"] = len(pods)
            if ready:
                status |= {"readyReplicas": ready, "availableReplicas": ready}
            target["status"] = status

        self.edit(replica_set, edit)


def _keep_rank(pod: Obj) -> tuple[bool, bool, int]:
    """Sorted ascending this is the order in which pods go: unscheduled, unready, youngest."""
    scheduled = bool(dig(pod, "spec", "nodeName"))
    return scheduled, is_ready(pod), -int(pod["metadata"]["resourceVersion"])
