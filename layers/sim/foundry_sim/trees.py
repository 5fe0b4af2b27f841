"""Gradient-boosted trees evaluated with NumPy alone: exact, without XGBoost or SciPy in the package.

Trees are stored complete: every tree has 2^depth - 1 tests and 2^depth leaves in breadth-first order; a test that
XGBoost did not make compares with +inf. A row goes right when `value >= threshold`, in 32 bit, as XGBoost decides.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Forest:
    """Shapes: feature and threshold (trees, 2^depth - 1), leaf (trees, 2^depth)."""

    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    leaf: NDArray[np.float32]
    base: float

    @property
    def depth(self) -> int:
        return int(self.leaf.shape[1]).bit_length() - 1

    def predict(self, columns: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sum of leaves per row; `columns` is features × rows, contiguous, without NaN."""
        total = np.full(columns.shape[1], self.base, dtype=np.float64)
        for tests, thresholds, leaves in zip(self.feature, self.threshold, self.leaf, strict=True):
            bits = [columns[f] >= limit for f, limit in zip(tests.tolist(), thresholds, strict=True)]
            total += leaves.take(_descend(bits, self.depth))
        return total


def _descend(bits: list[Bits], depth: int) -> NDArray[np.uint8]:
    """Leaf numbers: every level's decision is chosen among its nodes by the decisions above it."""
    chosen = [bits[0]]
    place = bits[0].astype(np.uint8)
    for level in range(1, depth):
        nodes = bits[2**level - 1 : 2 ** (level + 1) - 1]
        for above in reversed(chosen):
            nodes = [_choose(above, low, high) for low, high in zip(nodes[0::2], nodes[1::2], strict=True)]
        chosen.append(nodes[0])
        place = np.asarray((place << 1) | nodes[0], np.uint8)
    return place


def _choose(pick_high: Bits, low: Bits, high: Bits) -> Bits:
    return low ^ (pick_high & (low ^ high))


def complete(dumped: list[dict[str, Any]], depth: int, base: float) -> Forest:
    """XGBoost's JSON dump of depth-limited trees → Forest."""
    feature = np.zeros((len(dumped), 2**depth - 1), np.int16)
    threshold = np.full((len(dumped), 2**depth - 1), np.inf, np.float32)
    leaf = np.zeros((len(dumped), 2**depth), np.float32)
    for tree, root in enumerate(dumped):
        _place(root, 0, 0, depth, feature[tree], threshold[tree], leaf[tree])
    return Forest(feature, threshold, leaf, base)


def _place(
    node: dict[str, Any],
    index: int,
    level: int,
    depth: int,
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    leaf: NDArray[np.float32],
) -> None:
    if level == depth:
        leaf[index - (2**depth - 1)] = node["leaf"]
        return
    if "leaf" in node:
        children = [node, node]
    else:
        feature[index] = int(str(node["split"]).removeprefix("f"))
        threshold[index] = node["split_condition"]
        by_id = {child["nodeid"]: child for child in node["children"]}
        children = [by_id[node["yes"]], by_id[node["no"]]]
    for side, child in enumerate(children):
        _place(child, 2 * index + 1 + side, level + 1, depth, feature, threshold, leaf)
