"""Services: endpoints of their ready pods, and one stable loopback port per service port that balances over them."""

import asyncio
import itertools
import logging
import socket

from foundry_local.kube.containers import LOCAL_URL_ANNOTATION, port_number
from foundry_local.kube.kubelet import Kubelet
from foundry_local.kube.owners import is_ready
from foundry_local.kube.podworker import PodWorker
from foundry_local.kube.resources import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES, ResourceType
from foundry_local.kube.selectors import map_selector
from foundry_local.kube.store import Store
from foundry_local.kube.types import (
    Obj,
    annotations_of,
    clone,
    dig,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    uid_of,
)
from foundry_local.twin import TwinServer

logger = logging.getLogger(__name__)


class ServicePort:
    """A listener that hands each new connection to the next ready pod, as kube-proxy does, without copying."""

    def __init__(self) -> None:
        self.port = 0
        self.backends: list[tuple[PodWorker, int]] = []
        self._turn = itertools.count()
        self._listener: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, preferred: int) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", preferred))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        listener.setblocking(False)
        self._listener, self.port = listener, listener.getsockname()[1]
        self._task = asyncio.get_running_loop().create_task(self._accept(listener), name=f"service port {self.port}")

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            await self._hand_over(connection)

    def choose(self) -> TwinServer | None:
        """The next ready engine in turn."""
        ready = [worker.twin for worker, port in self.backends if worker.address(port) and worker.twin]
        return ready[next(self._turn) % len(ready)] if ready else None

    async def _hand_over(self, connection: socket.socket) -> None:
        twin = self.choose()
        if twin is None:
            connection.close()
            return
        connection.setblocking(False)
        # asyncio does this only for sockets whose protocol number says TCP, which accepted ones leave at zero.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await twin.http.adopt(connection)
        except OSError:
            connection.close()

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._listener is not None:
            self._listener.close()


class Services:
    """Keeps Endpoints, EndpointSlices and loopback listeners in step with services and pods."""

    def __init__(self, store: Store, kubelet: Kubelet) -> None:
        self.store = store
        self._kubelet = kubelet
        self._listeners: dict[tuple[str, str], ServicePort] = {}

    def reconcile(self) -> None:
        services = self.store.select(SERVICES)
        for service in services:
            if not is_deleting(service) and dig(service, "spec", "selector"):
                self._reconcile(service)
        self._close_stale(services)

    def _reconcile(self, service: Obj) -> None:
        matches = map_selector(service["spec"]["selector"])
        pods = [
            pod
            for pod in self.store.select(PODS, namespace_of(service))
            if matches(labels_of(pod)) and dig(pod, "status", "podIP") and not is_deleting(pod)
        ]
        self._write_endpoints(service, pods)
        self._write_slice(service, pods)
        for port in service["spec"].get("ports") or []:
            self._listen(service, port, [pod for pod in pods if is_ready(pod)])

    def _write_endpoints(self, service: Obj, pods: list[Obj]) -> None:
        ports = service["spec"].get("ports") or []
        subset: Obj = {}
        for key, wanted in (("addresses", True), ("notReadyAddresses", False)):
            if addresses := [_address(pod) for pod in pods if is_ready(pod) is wanted]:
                subset[key] = addresses
        if subset:
            subset["ports"] = [_endpoint_port(port, pods) for port in ports]
        endpoints = _companion("Endpoints", "v1", service, name_of(service))
        endpoints["subsets"] = [subset] if subset else []
        self._put(ENDPOINTS, endpoints)

    def _write_slice(self, service: Obj, pods: list[Obj]) -> None:
        found = _companion("EndpointSlice", "discovery.k8s.io/v1", service, f"{name_of(service)}-ipv4")
        found["metadata"]["labels"]["kubernetes.io/service-name"] = name_of(service)
        found["addressType"] = "IPv4"
        found["ports"] = [_endpoint_port(port, pods) for port in service["spec"].get("ports") or []]
        found["endpoints"] = [
            {
                "addresses": [pod["status"]["podIP"]],
                "conditions": {"ready": is_ready(pod), "serving": is_ready(pod), "terminating": False},
                "nodeName": pod["spec"]["nodeName"],
                "targetRef": _target(pod),
            }
            for pod in pods
        ]
        self._put(ENDPOINT_SLICES, found)

    def _put(self, resource: ResourceType, wanted: Obj) -> None:
        current = self.store.peek(resource, namespace_of(wanted), name_of(wanted))
        if current is None:
            self.store.create(resource, wanted)
            return
        self.store.replace(resource, wanted | {"metadata": clone(current["metadata"])})

    def _listen(self, service: Obj, port: Obj, pods: list[Obj]) -> None:
        key = (uid_of(service), str(port.get("name") or port["port"]))
        listener = self._listeners.get(key)
        if listener is None:
            listener = self._listeners[key] = ServicePort()
            listener.start(_preferred_port(service, port))
        workers = [(pod, self._kubelet.worker_of(pod)) for pod in pods]
        listener.backends = [(worker, _target_port(pod, port)) for pod, worker in workers if worker is not None]
        self._announce(service, port, f"http://127.0.0.1:{listener.port}")

    def _announce(self, service: Obj, port: Obj, url: str) -> None:
        """`foundry.dev/local-url` for the first port, with `.<port>` appended for each of several."""
        names = _annotation_names(service, port)
        if all(annotations_of(service).get(name) == url for name in names):
            return

        def edit(target: Obj) -> None:
            target["metadata"].setdefault("annotations", {}).update(dict.fromkeys(names, url))

        self.store.mutate(SERVICES, namespace_of(service), name_of(service), edit)

    def _close_stale(self, services: list[Obj]) -> None:
        alive = {
            (uid_of(service), str(port.get("name") or port["port"]))
            for service in services
            for port in service["spec"].get("ports") or []
        }
        for key in [key for key in self._listeners if key not in alive]:
            self._listeners.pop(key).stop()

    def backend(self, service: Obj, port: str) -> TwinServer | None:
        """The engine for one request to a service port, by name or number; None where no pod is ready."""
        entry = next(
            (p for p in service["spec"].get("ports") or [] if port in ("", p.get("name"), str(p["port"]))), None
        )
        listener = self._listeners.get((uid_of(service), str(entry.get("name") or entry["port"]))) if entry else None
        return listener.choose() if listener else None

    def stop(self) -> None:
        for listener in self._listeners.values():
            listener.stop()
        self._listeners.clear()


def _annotation_names(service: Obj, port: Obj) -> list[str]:
    ports = service["spec"]["ports"]
    names = [LOCAL_URL_ANNOTATION] if port is ports[0] or port == ports[0] else []
    if len(ports) > 1:
        names.append(f"{LOCAL_URL_ANNOTATION}.{port.get('name') or port['port']}")
    return names


def _preferred_port(service: Obj, port: Obj) -> int:
    url = annotations_of(service).get(_annotation_names(service, port)[-1], "")
    text = url.rpartition(":")[2]
    return int(text) if text.isdigit() else 0


def _target_port(pod: Obj, port: Obj) -> int:
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    found = (port_number(container, target) for container in pod["spec"]["containers"])
    return next((number for number in found if number), 0)


def _endpoint_port(port: Obj, pods: list[Obj]) -> Obj:
    number = _target_port(pods[0], port) if pods else port["port"]
    named = {"name": port["name"]} if port.get("name") else {}
    return named | {"port": number, "protocol": port.get("protocol", "TCP")}


def _target(pod: Obj) -> Obj:
    return {"kind": "Pod", "namespace": namespace_of(pod), "name": name_of(pod), "uid": uid_of(pod)}


def _address(pod: Obj) -> Obj:
    return {"ip": pod["status"]["podIP"], "nodeName": pod["spec"]["nodeName"], "targetRef": _target(pod)}


def _companion(kind: str, api_version: str, service: Obj, name: str) -> Obj:
    """An object that follows a service and goes with it."""
    owner = {"apiVersion": "v1", "kind": "Service", "name": name_of(service), "uid": uid_of(service)}
    metadata: Obj = {"name": name, "namespace": namespace_of(service), "labels": dict(labels_of(service))}
    metadata["ownerReferences"] = [owner | {"controller": True, "blockOwnerDeletion": True}]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}
