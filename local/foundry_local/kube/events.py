"""Core v1 events, counted up where the same thing happens again, as the recorder in client-go does."""

from foundry_local.kube.resources import EVENTS, NAMESPACES
from foundry_local.kube.store import Store
from foundry_local.kube.types import Obj, is_deleting, name_of, namespace_of, now_text, random_suffix, uid_of

MAX_EVENTS_PER_NAMESPACE = 500


class Recorder:
    """Writes events; the oldest of a namespace go when there are too many (the real server expires them by age)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str, str], tuple[str, str]] = {}

    def record(self, about: Obj, reason: str, message: str, *, source: str, warning: bool = False) -> None:
        namespace = namespace_of(about) or "default"
        home = self._store.peek(NAMESPACES, "", namespace)
        if home is None or is_deleting(home):
            return
        key = (uid_of(about), reason, message)
        if key in self._known and self._count_up(*self._known[key]):
            return
        now = now_text()
        event: Obj = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name_of(about)}.{random_suffix(10)}", "namespace": namespace},
            "involvedObject": _reference(about),
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "source": {"component": source},
            "reportingComponent": source,
            "reportingInstance": "",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._store.create(EVENTS, event)
        self._known[key] = (namespace, event["metadata"]["name"])
        self._trim(namespace)

    def _count_up(self, namespace: str, name: str) -> bool:
        def edit(event: Obj) -> None:
            event["count"] += 1
            event["lastTimestamp"] = now_text()

        return self._store.mutate(EVENTS, namespace, name, edit) is not None

    def _trim(self, namespace: str) -> None:
        events = self._store.select(EVENTS, namespace)
        if len(events) > MAX_EVENTS_PER_NAMESPACE:
            oldest = min(events, key=lambda event: int(event["metadata"]["resourceVersion"]))
            self._store.remove(EVENTS, namespace, name_of(oldest))
            self._known = {k: v for k, v in self._known.items() if v != (namespace, name_of(oldest))}


def _reference(about: Obj) -> Obj:
    metadata = about["metadata"]
    keys = {"name": "name", "namespace": "namespace", "uid": "uid", "resourceVersion": "resourceVersion"}
    reference = {target: metadata[key] for target, key in keys.items() if key in metadata}
    return {"kind": about["kind"], "apiVersion": about["apiVersion"]} | reference
