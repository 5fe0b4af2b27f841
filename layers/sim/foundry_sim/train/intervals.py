"""How wide intervals are: the size of the errors that left-out rows showed, learned over three ways of leaving out.

A forest predicts an error's size from the features and the distance to the nearest measurement: answers lean to the low
side by it, and a factor stretches it until the nominal share of left-out rows is covered. Unseen configurations, models
and devices teach both. What is reported of a group comes from forests and factors made without its rows; rows after the
date and sources left out never teach, only check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundry_sim.learned.regressor import error_size, lean, with_distance
from foundry_sim.learned.trees import Forest
from foundry_sim.physics.terms import Array
from foundry_sim.train.dataset import Dataset, curve_weight, fully_known
from foundry_sim.train.fit_residual import Prepared, scale_forest
from foundry_sim.train.heldout import SPLITS, Heldout, folds

# Left-out models and devices are few, and the next one may be unlike all of them: its quantile lies higher.
_COVERAGE = {False: 0.90, True: 0.93}
_NOVEL = ("model", "device")
_TRUSTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_TESTS = ("time", "source")


@dataclass(frozen=True, slots=True)
class Sample:
    """Held-out log errors of one head, one per row and way of leaving out; `group` says what was left out together."""

    row: NDArray[np.intp]
    split: NDArray[np.intp]
    group: NDArray[np.intp]
    columns: NDArray[np.float32]  # features × errors
    error: Array
    weight: Array

    @property
    def novel(self) -> NDArray[np.bool_]:
        return self._of(_NOVEL)

    def without(self, group: int) -> NDArray[np.bool_]:
        """What may teach about a group: nothing of its rows under any split, nothing of the test splits."""
        own = np.isin(self.row, self.row[self.group == group])
        return ~own & ~self._of(_TESTS)

    def _of(self, names: Sequence[str]) -> NDArray[np.bool_]:
        return np.isin(self.split, [SPLITS.index(name) for name in names])


def errors(held: Heldout, head: str, trust: float) -> Array:
    return np.asarray(held.physics[head] + trust * (held.corrected[head] - held.physics[head]))


def trust(data: Dataset, head: str, found: Mapping[str, Heldout]) -> float:
    """How much of the correction to keep on unseen models and devices."""
    recorded = data.current & np.array([fully_known(m) for m in data.rows])

    def cost(share: float) -> float:
        left = np.array([errors(found[split], head, share)[recorded] for split in _NOVEL])
        return float(np.nanmean(np.minimum(np.abs(left), 1.0)))

    return min(_TRUSTS, key=cost)


def sample(p: Prepared, head: str, found: Mapping[str, Heldout], novel_trust: float) -> Sample:
    parts = []
    for place, split in enumerate(SPLITS):
        error = errors(found[split], head, novel_trust if split in _NOVEL else 1.0)
        rows = np.flatnonzero(np.isfinite(error) & p.data.current)
        group = 100 * place + folds(p.data.rows, split)[rows]
        columns = with_distance(p.features[rows], found[split].distance[rows])
        parts.append((rows, np.full(len(rows), place), group, columns.T, error[rows]))
    row, split_, group, columns, error = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Sample(row, split_, group, np.ascontiguousarray(columns.T), error, curve_weight(p.data, head)[row])


def fit(s: Sample) -> tuple[Forest, Array]:
    """The forest of error sizes, and the factor by novelty; beyond one novelty as far again for each, by assumption."""
    sizes = _sizes(s)
    usual, novel = (_stretch(s, sizes, s.without(-1), kind) for kind in (False, True))
    novel = max(usual, novel)
    return _forest(s, s.without(-1)), np.array([usual, novel, 1.3 * novel, 1.6 * novel])


def crossed(s: Sample) -> tuple[Array, Array]:
    """Each error as it would be shipped, leaning, and its interval's half-width (log), by models without its group."""
    sizes, found = _sizes(s), np.empty(len(s.error))
    for group in np.unique(s.group).tolist():
        out = s.group == group
        found[out] = sizes[out] * _stretch(s, sizes, s.without(group), bool(s.novel[out][0]))
    return s.error - lean(sizes), found


def _sizes(s: Sample) -> Array:
    """Expected size of each error by a forest that saw none of its group."""
    found = np.empty(len(s.error))
    for group in np.unique(s.group).tolist():
        out = s.group == group
        found[out] = error_size(_forest(s, s.without(group)).predict(s.columns[:, out]))
    return found


def _forest(s: Sample, keep: NDArray[np.bool_]) -> Forest:
    return scale_forest(s.columns[:, keep].T, s.error[keep], s.weight[keep])


def _stretch(s: Sample, sizes: Array, keep: NDArray[np.bool_], novel: bool) -> float:
    """The quantile of |leaning error| / size; a large group counts more than a small one, but not in proportion."""
    rows = keep & (s.novel == novel)
    _, place, size = np.unique(s.group[rows], return_inverse=True, return_counts=True)
    ratio = np.abs(s.error - lean(sizes))[rows] / sizes[rows]
    found = np.quantile(ratio, _COVERAGE[novel], weights=size[place] ** -0.5, method="inverted_cdf")
    return float(found)
