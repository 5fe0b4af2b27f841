"""Gradient-boosted trees evaluated with NumPy alone: exact, without XGBoost or SciPy in the package.

Trees are stored complete: every tree has 2^depth - 1 tests and 2^depth leaves in breadth-first order; a test that
XGBoost did not make compares with +inf. A row goes right when `value >= threshold`, in 32 bit, as XGBoost decides.

Evaluated as QuickScorer does (Lucchese et al., SIGIR 2015): a word per tree has a bit for each leaf; going right at a
test clears those to its left, and after all tests the lowest bit left is the row's leaf. What all tests on one feature
clear in all trees is looked up at once, by how many of the feature's thresholds the row reaches.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]
_ROWS = 1024  # at once: their words stay in the processor's cache


@dataclass(frozen=True, slots=True)
class _Tests:
    """The tests of all trees by feature and rising threshold, and what they leave: a line of words (one per tree) for
    every number of a feature's thresholds that a row may reach, so one line more than the feature has thresholds."""

    features: NDArray[np.intp]
    first: NDArray[np.intp]  # threshold of each feature
    lines: NDArray[np.intp]  # first line of each feature
    thresholds: NDArray[np.float32]
    tested: NDArray[np.intp]  # feature of each threshold
    left: Words  # lines × trees

    def reached(self, values: NDArray[np.float32]) -> NDArray[np.intp]:
        """How many thresholds of each feature a row with these values reaches."""
        return np.asarray(np.add.reduceat(self.thresholds <= values[self.tested], self.first, dtype=np.intp))


@dataclass(frozen=True)
class Forest:
    """Shapes: feature and threshold (trees, 2^depth - 1), leaf (trees, 2^depth), at most 64 leaves a tree."""

    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    leaf: NDArray[np.float32]
    base: float

    @property
    def depth(self) -> int:
        return int(self.leaf.shape[1]).bit_length() - 1

    def predict(self, columns: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sum of leaves per row; `columns` is features × rows, contiguous, without NaN."""
        found = np.empty(columns.shape[1], np.float64)
        for start in range(0, len(found), _ROWS):
            found[start : start + _ROWS] = self._sums(_words(self._tests, columns[:, start : start + _ROWS]))
        return found + self.base

    def _sums(self, words: Words) -> NDArray[np.float64]:
        trees, leaves = self.leaf.shape
        lowest = np.bitwise_count(~words & (words - 1))
        reached = self._leaves.take(lowest + np.arange(0, trees * leaves, leaves))
        return np.asarray(reached @ np.ones(trees))

    @cached_property
    def _leaves(self) -> NDArray[np.float64]:
        return self.leaf.astype(np.float64).reshape(-1)

    @cached_property
    def _tests(self) -> _Tests:
        return _sorted_tests(self)


def _words(t: _Tests, columns: NDArray[np.float32]) -> Words:
    """Rows × trees. Thresholds that all rows reach, or none does, are not compared row by row."""
    least, most = t.reached(columns.min(axis=1)), t.reached(columns.max(axis=1))
    common = np.bitwise_and.reduce(t.left[t.lines + least], axis=0)
    words = np.repeat(common[None], columns.shape[1], axis=0)
    found = np.empty_like(words)
    for place in np.flatnonzero(least < most).tolist():
        between = slice(t.first[place] + least[place], t.first[place] + most[place])
        reached = t.thresholds[between].searchsorted(columns[t.features[place]], side="right")
        t.left[t.lines[place] + least[place] :].take(reached, axis=0, out=found, mode="clip")
        words &= found
    return words


def _sorted_tests(forest: Forest) -> _Tests:
    tree, node = np.nonzero(np.isfinite(forest.threshold))
    made = np.stack([forest.feature[tree, node], forest.threshold[tree, node]])
    distinct, place = np.unique(made, axis=1, return_inverse=True)
    features, first = np.unique(distinct[0], return_index=True)
    lines = first + np.arange(len(first))
    kept = _kept(forest.depth)
    left = np.full((len(distinct[0]) + len(first), len(forest.leaf)), ~kept.dtype.type(0))
    # Trees may test one threshold twice, so that a line takes the words of both.
    np.bitwise_and.at(left, (place + np.searchsorted(features, made[0]) + 1, tree), kept[node])
    for begin, end in pairwise([*lines.tolist(), len(left)]):
        np.bitwise_and.accumulate(left[begin:end], axis=0, out=left[begin:end])
    return _Tests(features.astype(np.intp), first, lines, distinct[1], distinct[0].astype(np.intp), left)


def _kept(depth: int) -> Words:
    """The word of each test in breadth-first order: all leaves but those of its left half."""
    found = []
    for level in range(depth):
        width = 2 ** (depth - level)
        found += [(2 ** (width // 2) - 1) << start for start in range(0, 2**depth, width)]
    word = np.dtype(f"u{max(1, 2**depth // 8)}")
    return ~np.array(found, word)


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
