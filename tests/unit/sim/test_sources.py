"""Sources that are left out whole: what teaches the fits, and what their errors may teach in turn."""

from typing import Any

import numpy as np
import pytest
from foundry_sim.train import heldout, intervals
from foundry_sim.train.dataset import CURRENT, Dataset, load
from foundry_sim.train.fit import fitted_table
from foundry_sim.train.fit_residual import Prepared

SOURCE = heldout.SPLITS.index("source")


class ShippedConstants:
    """Stands in for a fit that takes a minute; remembers which rows it was given."""

    taught: list[list[str]]

    def __init__(self, clean: Dataset, keep: Any) -> None:
        self.taught.append(sorted({m.source for m, kept in zip(clean.rows, keep, strict=True) if kept}))

    def run(self, rounds: int) -> dict[str, Any]:
        return fitted_table()


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return Prepared(load(known_speculation=False), fitted_table())


def _sample(p: Prepared, head: str) -> intervals.Sample:
    return intervals.sample(p, head, heldout.read(), 1.0)


def test_a_source_never_teaches_its_own_constants(monkeypatch: pytest.MonkeyPatch, prepared: Prepared) -> None:
    monkeypatch.setattr(heldout, "PhysicsFit", ShippedConstants)
    monkeypatch.setattr(ShippedConstants, "taught", [], raising=False)
    everything = {m.source for m in prepared.data.rows}
    names = [name for name, _ in heldout.fit_folds(prepared.data, "source")]
    assert names == [f"source/{place}" for place in range(len(CURRENT))]
    assert ShippedConstants.taught == [sorted(everything - {source}) for source in sorted(CURRENT)]


def test_no_row_of_a_source_teaches_the_sizes_of_its_errors(prepared: Prepared) -> None:
    s = _sample(prepared, "tpot")
    source = np.array([prepared.data.rows[row].source for row in s.row])
    for group in np.unique(s.group[s.split == SOURCE]).tolist():
        own = set(source[s.group == group].tolist())
        assert len(own) == 1 and not own & set(source[s.without(group)].tolist())


def test_sources_left_out_only_check_and_never_teach(prepared: Prepared) -> None:
    s = _sample(prepared, "tpot")
    assert (s.split == SOURCE).any() and not (s.without(-1) & (s.split == SOURCE)).any()


def test_a_head_that_one_source_alone_measured_has_no_correction_without_it(prepared: Prepared) -> None:
    assert not (_sample(prepared, "rate").split == SOURCE).any()
    assert np.isfinite(heldout.read()["source"].physics["rate"]).any()
