"""Gradient-boosted trees evaluated with NumPy alone: exact, without XGBoost or SciPy in the package.

Trees are stored complete: every tree has 2^depth - 1 tests and 2^depth leaves in breadth-first order; a test that
XGBoost did not make compares with +inf. A row goes right when `value >= threshold`, in 32 bit, as XGBoost decides.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
        """Sum of leaves per row; `columns` is features × rows, contiguous, without NaN.

        A search varies a few features only: tests on the others are the same for all rows and are taken once.
        """
        total = np.full(columns.shape[1], self.base, dtype=np.float64)
        if not columns.shape[1]:
            return total
        first = columns[:, 0]
        fixed = (columns == first[:, None]).all(axis=1)
        for tests, thresholds, leaves in zip(self.feature, self.threshold, self.leaf, strict=True):
            same = fixed[tests] | np.isinf(thresholds)
            known = np.where(same, first[tests] >= thresholds, -1).tolist()
            total += _Tree(tests.tolist(), thresholds.tolist(), leaves, known, columns).value(0)
        return total


@dataclass(frozen=True, slots=True)
class _Tree:
    """One tree on one block: `known` holds 0 or 1 where a test has the same result for all rows, else -1."""

    tests: list[int]
    thresholds: list[float]
    leaves: NDArray[np.float32]
    known: list[int]
    columns: NDArray[np.float32]

    def value(self, node: int) -> np.float32 | NDArray[np.float32]:
        if node >= len(self.tests):
            return np.float32(self.leaves[node - len(self.tests)])
        if self.known[node] >= 0:
            return self.value(2 * node + 1 + self.known[node])
        low, high = self.value(2 * node + 1), self.value(2 * node + 2)
        if low is high:
            return low
        right = self.columns[self.tests[node]] >= np.float32(self.thresholds[node])
        return np.where(right, high, low)


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
