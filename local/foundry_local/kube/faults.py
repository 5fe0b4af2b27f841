"""Faults for tests and demonstrations: what real clusters do to engines, on demand."""

import asyncio
from dataclasses import dataclass, field
from typing import Literal, get_args

from foundry_local.kube.selectors import map_selector
from foundry_local.kube.types import Obj, annotations_of, labels_of, name_of, namespace_of

FAULT_ANNOTATION = "foundry.dev/fault"

FaultKind = Literal["image-pull", "oom-killed", "crash-loop", "never-ready", "job-failed", "node-not-ready"]
FAULT_KINDS: tuple[str, ...] = get_args(FaultKind)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and for whom: pods by namespace, name prefix and labels, or a node by name.

    A pod may also ask for its own fault with the annotation `foundry.dev/fault: <kind>`.
    `times` limits how many container starts a crash or OOM hits; None means every one.
    """

    kind: FaultKind
    namespace: str = ""
    prefix: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    node: str = ""
    times: int | None = None

    def hits(self, pod: Obj) -> bool:
        if self.namespace and self.namespace != namespace_of(pod):
            return False
        if not name_of(pod).startswith(self.prefix):
            return False
        return not self.labels or map_selector(self.labels)(labels_of(pod))


class FaultBoard:
    """The faults in force. Whoever suffers from one waits on `changed`."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._strikes: dict[int, int] = {}
        self._changed = asyncio.Event()

    def inject(self, fault: Fault) -> None:
        self._faults.append(fault)
        self._announce()

    def clear(self) -> None:
        self._faults.clear()
        self._strikes.clear()
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        await self._changed.wait()

    def has(self, pod: Obj, kind: FaultKind) -> bool:
        if annotations_of(pod).get(FAULT_ANNOTATION) == kind:
            return True
        return any(fault.kind == kind and fault.hits(pod) for fault in self._faults)

    def strike(self, pod: Obj, kind: FaultKind) -> bool:
        """Like `has`, but counts against `times`."""
        for fault in self._faults:
            if fault.kind != kind or not fault.hits(pod):
                continue
            key = id(fault)
            used = self._strikes.get(key, 0)
            if fault.times is None or used < fault.times:
                self._strikes[key] = used + 1
                return True
        return annotations_of(pod).get(FAULT_ANNOTATION) == kind

    def node_down(self, node: str) -> bool:
        return any(fault.kind == "node-not-ready" and fault.node == node for fault in self._faults)
