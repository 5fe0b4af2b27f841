"""`foundry sim validate --split source`: errors on each source of measurements that is left out whole.

How the simulator does on other people's benchmarks, of which it knows no row. Nothing is stored or calibrated on it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from foundry_sim.learned.regressor import HEADS, Regressor, lean, novelty_of
from foundry_sim.physics.terms import Array
from foundry_sim.train import heldout, intervals
from foundry_sim.train.dataset import CURRENT, fully_known, load
from foundry_sim.train.fit_physics import PhysicsFit
from foundry_sim.train.fit_residual import Prepared, known_facts

_HEADER = f"{'source left out':42} {'n':>5} closed form: MAPE, median %   predicted: MAPE, median, bias %"


def report() -> Iterator[str]:
    """Lines of the table; physics and corrections are fitted again for every source (minutes)."""
    clean, asked = load(known_speculation=True), load(known_speculation=False)
    stored = heldout.read()
    yield _HEADER
    for source in sorted(CURRENT):
        out = np.array([m.source == source for m in asked.rows])
        fitted = heldout.rounded(PhysicsFit(clean, ~out).run(heldout.ROUNDS))
        yield from _lines(source, Prepared(asked, fitted), out, stored)


def _lines(source: str, p: Prepared, out: NDArray[np.bool_], stored: dict[str, heldout.Heldout]) -> Iterator[str]:
    held = heldout.errors_without(p, out)
    recorded = np.array([fully_known(m) for m in p.data.rows])
    for head in HEADS:
        seen = np.isfinite(held.corrected[head]) & p.data.current
        predicted = _predicted(p, out, held, head, stored)
        for name, keep in ((head, seen), (f"{head}, fully recorded", seen & recorded)):
            if keep.any():
                yield _line(f"{source}: {name}", held.physics[head][keep], predicted[keep])


def _predicted(
    p: Prepared, out: NDArray[np.bool_], held: heldout.Heldout, head: str, stored: dict[str, heldout.Heldout]
) -> Array:
    """Log errors with the trust and the lean that a request of the source would get."""
    trust = intervals.trust(p.data, head, stored)
    known = Regressor({}, **known_facts(p, ~out))
    novel = novelty_of(known, p.terms, p.data.frame.context) > 0
    size = intervals.sizes_elsewhere(p, head, stored, out, held.distance)
    return np.where(novel, intervals.errors(held, head, trust), held.corrected[head]) - lean(size)


def _line(name: str, physics: Array, predicted: Array) -> str:
    sizes = [100 * np.abs(np.expm1(error)) for error in (physics, predicted)]
    bias = 100 * float(np.median(np.expm1(predicted)))
    numbers = "".join(f"{size.mean():21.1f} {np.median(size):7.1f}" for size in sizes)
    return f"{name:42} {len(physics):5d}{numbers} {bias:7.1f}"
