"""What every namespace has, what goes with it, and the objects that a fresh cluster starts with."""

from foundry_local.kube.deletion import Deleter
from foundry_local.kube.resources import CONFIG_MAPS, NAMESPACES, NODES, SERVICE_ACCOUNTS, SERVICES
from foundry_local.kube.store import Store
from foundry_local.kube.types import Obj, is_deleting, name_of
from foundry_local.kube.writes import Writer

SYSTEM = ("default", "kube-system", "kube-public", "kube-node-lease")


class Namespaces:
    """Default service account and root CA of each namespace; the emptying of those that terminate."""

    def __init__(self, store: Store, writer: Writer, deleter: Deleter) -> None:
        self.store = store
        self.writer = writer
        self.deleter = deleter

    def bootstrap(self, nodes: list[Obj]) -> None:
        """Create what is missing of a fresh cluster; what a snapshot restored stays as it is."""
        for name in SYSTEM:
            if self.store.peek(NAMESPACES, "", name) is None:
                self.writer.create(NAMESPACES, "", {"metadata": {"name": name}})
        for node in nodes:
            if self.store.peek(NODES, "", name_of(node)) is None:
                self.writer.create(NODES, "", node)
        if self.store.peek(SERVICES, "default", "kubernetes") is None:
            spec = {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "targetPort": 6443}]}
            labels = {"component": "apiserver", "provider": "kubernetes"}
            self.writer.create(
                SERVICES, "default", {"metadata": {"name": "kubernetes", "labels": labels}, "spec": spec}
            )
        self.reconcile()

    def reconcile(self) -> None:
        for namespace in self.store.select(NAMESPACES):
            if is_deleting(namespace):
                self.deleter.empty_namespace(name_of(namespace))
            else:
                self._furnish(name_of(namespace))

    def _furnish(self, namespace: str) -> None:
        if self.store.peek(SERVICE_ACCOUNTS, namespace, "default") is None:
            self.writer.create(SERVICE_ACCOUNTS, namespace, {"metadata": {"name": "default"}})
        if self.store.peek(CONFIG_MAPS, namespace, "kube-root-ca.crt") is None:
            body = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": ""}}
            self.writer.create(CONFIG_MAPS, namespace, body)
