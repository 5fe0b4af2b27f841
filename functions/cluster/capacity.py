"""Which GPUs are promised to whom: pods are placed on nodes, because a replica cannot straddle two of them."""

from collections.abc import Iterable, Sequence

from pydantic import BaseModel


class Reservation(BaseModel):
    """What one deployment holds on one device group: the GPUs of each of its pods."""

    group: str
    pod_gpus: list[int]


def fits(free_gpus: Sequence[int], pod_gpus: Iterable[int]) -> bool:
    """Whether all pods find a node, by first-fit decreasing (``free_gpus``: GPUs per node)."""
    left = sorted(free_gpus, reverse=True)
    for wanted in sorted(pod_gpus, reverse=True):
        place = next((index for index, free in enumerate(left) if free >= wanted), None)
        if place is None:
            return False
        left[place] -= wanted
    return True


def admits(node_gpus: Sequence[int], held: Iterable[Reservation], wanted: Reservation) -> bool:
    """Whether ``wanted`` fits beside what others hold on the same group."""
    pods = [gpus for other in held if other.group == wanted.group for gpus in other.pod_gpus]
    return fits(node_gpus, [*pods, *wanted.pod_gpus])
