"""Parameters of vision towers and their projectors, where the config describes one that is known; else 0."""

from collections.abc import Callable

from foundry_sim.architectures.reader import Reader


def parameters(top: Reader, text_hidden: int) -> int:
    """The tower that this multimodal config describes; an unknown kind counts as text only."""
    return 0


_Counter = Callable[[Reader, Reader, int], int]
