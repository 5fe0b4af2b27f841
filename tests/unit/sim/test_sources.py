"""The table of sources that are left out whole: what it trains on, and what it counts."""

from typing import Any

import numpy as np
import pytest
from foundry_sim.train import heldout, intervals, sources
from foundry_sim.train.dataset import CURRENT, Dataset, load
from foundry_sim.train.fit import fitted_table
from foundry_sim.train.fit_residual import Prepared


class ShippedConstants:
    """Stands in for a fit that takes a minute; remembers which rows it was given."""

    taught: list[list[str]]

    def __init__(self, clean: Dataset, keep: Any) -> None:
        self.taught.append(sorted({m.source for m, kept in zip(clean.rows, keep, strict=True) if kept}))

    def run(self, rounds: int) -> dict[str, Any]:
        return fitted_table()


def test_a_source_never_teaches_what_is_reported_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(known_speculation=False)
    some = data.take(np.arange(0, len(data.rows), 9))
    everything = {m.source for m in some.rows}
    monkeypatch.setattr(sources, "load", lambda known_speculation: some)
    monkeypatch.setattr(sources.intervals, "trust", lambda *_: 0.5)
    monkeypatch.setattr(sources.intervals, "sizes_elsewhere", lambda *_: 0.1)
    monkeypatch.setattr(sources, "PhysicsFit", ShippedConstants)
    monkeypatch.setattr(ShippedConstants, "taught", [], raising=False)
    lines = list(sources.report())
    assert ShippedConstants.taught == [sorted(everything - {source}) for source in sorted(CURRENT)]
    counted = {line.split()[1] + line.split(":")[0]: int(line.split()[-6]) for line in lines[1:] if ", " not in line}
    amd = sum(m.source == "inferencex-amd" for m in some.rows)
    assert counted["tpotinferencex-amd"] == amd > 0
    assert {line.split(":")[0] for line in lines[1:]} == CURRENT


def test_error_sizes_of_a_source_come_from_the_others() -> None:
    data, stored = load(known_speculation=False), heldout.read()
    p, distance = Prepared(data, fitted_table()), np.ones(len(data.rows))
    offline = np.array([m.source == "trtllm-perf" for m in data.rows])
    alone = intervals.sizes_elsewhere(p, "rate", stored, offline, distance)
    assert not alone.any(), "one source alone measured the offline rate"
    assert (intervals.sizes_elsewhere(p, "tpot", stored, offline, distance) > 0).all()
