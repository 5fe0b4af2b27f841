"""Promises of GPUs: never more than there are, and never a replica across two nodes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from functions.cluster.capacity import Reservation, admits, fits

NODES = st.lists(st.integers(0, 8), max_size=6)
PODS = st.lists(st.integers(1, 8), max_size=10)


def test_a_replica_needs_one_node() -> None:
    assert fits([4, 4], [4, 4]) and not fits([4, 4], [8]) and fits([], []) and not fits([], [1])


@settings(deadline=None)
@given(NODES, PODS)
def test_what_fits_never_exceeds_what_there_is(nodes: list[int], pods: list[int]) -> None:
    if fits(nodes, pods):
        assert sum(pods) <= sum(nodes) and max(pods, default=0) <= max(nodes, default=0)


@settings(deadline=None)
@given(st.integers(1, 6), st.sampled_from([1, 2, 4, 8]), st.integers(0, 60))
def test_equal_pods_fit_exactly_as_many_as_divide_the_nodes(nodes: int, size: int, count: int) -> None:
    assert fits([8] * nodes, [size] * count) == (count <= nodes * (8 // size))


@settings(deadline=None)
@given(NODES, PODS, PODS)
def test_less_fits_where_more_does(nodes: list[int], pods: list[int], more: list[int]) -> None:
    """Adding nodes never turns a yes into a no; dropping all pods of one size never does either."""
    if fits(nodes, pods):
        assert fits([*nodes, *more], pods)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), PODS), max_size=5), PODS)
def test_groups_do_not_share(held: list[tuple[str, list[int]]], pods: list[int]) -> None:
    others = [Reservation(group=group, pod_gpus=gpus) for group, gpus in held]
    wanted = Reservation(group="c", pod_gpus=pods)
    assert admits([8, 8], others, wanted) == fits([8, 8], pods)
