"""Gradient-boosted trees evaluated with NumPy alone: exact, without XGBoost or SciPy in the package.

Trees are stored complete: every tree has 2^depth - 1 tests and 2^depth leaves in breadth-first order; a test that
XGBoost did not make compares with +inf. A row goes right when `value >= threshold`, in 32 bit, as XGBoost decides.

Evaluated as QuickScorer does (Lucchese et al., SIGIR 2015): a word per tree has a bit for each leaf; going right at a
test clears those to its left, and after all tests the lowest bit left is the row's leaf. What all tests on one feature
clear in all trees is looked up at once, by how many of the feature's thresholds the row reaches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]
_ROWS = 1024  # at once: their words stay in the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
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
        return side_by_side((self,), columns)[0]


def side_by_side(forests: tuple[Forest, ...], columns: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    """What each forest predicts of the same columns, compared once for all of them."""
    tests = _tests(forests)
    found = [np.empty(columns.shape[1], np.float64) for _ in forests]
    for start in range(0, columns.shape[1], _ROWS):
        words = _words(tests, columns[:, start : start + _ROWS])
        for values, leaves, name in zip(found, tests.leaves, words.dtype.names or (), strict=True):
            values[start : start + _ROWS] = _sums(leaves, words[name])
    return [values + forest.base for values, forest in zip(found, forests, strict=True)]


@dataclass(frozen=True, slots=True)
class _Tests:
    """The tests of all trees by feature and rising threshold, and what they leave: a line of words (one per tree) for
    every number of a feature's thresholds that a row may reach, so one line more than the feature has thresholds."""

    features: NDArray[np.intp]
    first: NDArray[np.intp]  # threshold of each feature
    lines: NDArray[np.intp]  # first line of each feature
    thresholds: NDArray[np.float32]
    tested: NDArray[np.intp]  # feature of each threshold
    left: NDArray[np.void]  # a field of words per forest
    leaves: list[NDArray[np.float64]]

    def reached(self, values: NDArray[np.float32]) -> NDArray[np.intp]:
        """How many thresholds of each feature a row with these values reaches."""
        return np.asarray(np.add.reduceat(self.thresholds <= values[self.tested], self.first, dtype=np.intp))


def _words(t: _Tests, columns: NDArray[np.float32]) -> NDArray[np.void]:
    """What is left of each row. Thresholds that all rows reach, or none does, are not compared row by row."""
    least, most = t.reached(columns.min(axis=1)), t.reached(columns.max(axis=1))
    common = np.bitwise_and.reduce(_bytes(t.left)[t.lines + least], axis=0)
    words = np.repeat(common.view(t.left.dtype), columns.shape[1])
    found = np.empty_like(words)
    all_bytes, found_bytes = _bytes(words), _bytes(found)
    for place in np.flatnonzero(least < most).tolist():
        between = slice(t.first[place] + least[place], t.first[place] + most[place])
        reached = t.thresholds[between].searchsorted(columns[t.features[place]], side="right")
        t.left[t.lines[place] + least[place] :].take(reached, out=found, mode="clip")
        all_bytes &= found_bytes
    return words


def _bytes(words: NDArray[np.void]) -> NDArray[np.uint8]:
    return words.view(np.uint8).reshape(len(words), -1)


def _sums(leaves: NDArray[np.float64], words: Words) -> NDArray[np.float64]:
    lowest = np.bitwise_count(~words & (words - 1))
    reached = leaves.reshape(-1).take(lowest + np.arange(0, leaves.size, leaves.shape[1]))
    return np.asarray(reached @ np.ones(len(leaves)))


@lru_cache(maxsize=16)
def _tests(forests: tuple[Forest, ...]) -> _Tests:
    places = [np.nonzero(np.isfinite(f.threshold)) for f in forests]
    made = np.hstack([np.stack([f.feature[at], f.threshold[at]]) for f, at in zip(forests, places, strict=True)])
    (tested, thresholds), place = np.unique(made, axis=1, return_inverse=True)
    features, first = np.unique(tested, return_index=True)
    lines = first + np.arange(len(first))
    line = place + np.searchsorted(features, made[0]) + 1
    left = _left(forests, places, line, [*lines.tolist(), len(tested) + len(lines)])
    leaves = [f.leaf.astype(np.float64) for f in forests]
    return _Tests(features.astype(np.intp), first, lines, thresholds, tested.astype(np.intp), left, leaves)


def _left(
    forests: Sequence[Forest],
    places: Sequence[tuple[NDArray[np.intp], ...]],
    line: NDArray[np.intp],
    bounds: Sequence[int],
) -> NDArray[np.void]:
    """The lines, of each feature between two bounds; `line` is the first of each test (at tree and node) to tell."""
    left = np.empty(bounds[-1], _layout(forests))
    _bytes(left)[:] = 255
    of_forest = np.split(line, np.cumsum([len(tree) for tree, _ in places])[:-1])
    for name, forest, (tree, node), at in zip(left.dtype.names or (), forests, places, of_forest, strict=True):
        # Trees may test one threshold twice, so that a line takes the words of both.
        np.bitwise_and.at(left[name], (at, tree), _kept(forest.depth)[node])
    for begin, end in pairwise(bounds):
        np.bitwise_and.accumulate(_bytes(left[begin:end]), axis=0, out=_bytes(left[begin:end]))
    return left


def _layout(forests: Sequence[Forest]) -> np.dtype[np.void]:
    return np.dtype([(str(i), _kept(f.depth).dtype, (len(f.leaf),)) for i, f in enumerate(forests)], align=True)


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
