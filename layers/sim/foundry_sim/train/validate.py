"""`foundry sim validate`: errors on groups kept out of training, as a table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundry_sim.learned.regressor import HEADS
from foundry_sim.physics.terms import Array
from foundry_sim.search.judge import CAUTION
from foundry_sim.train import heldout, intervals, tails
from foundry_sim.train.dataset import Dataset, fully_known, load
from foundry_sim.train.decisions import decide, summary
from foundry_sim.train.fit import fitted_table
from foundry_sim.train.fit_residual import Prepared
from foundry_sim.train.heldout import SPLITS
from foundry_sim.train.measurement import Measurement

_GROUPS: dict[str, Callable[[Measurement], str]] = {
    "curve": lambda m: f"{m.device} {m.engine}",
    "model": lambda m: m.model,
    "device": lambda m: m.device,
    "time": lambda m: m.engine,
    "source": lambda m: m.source + ("" if fully_known(m) else ", not fully recorded"),
}
_CAUTIONS = (0.0, 0.25, CAUTION, 0.75, 1.0)
_HEADER = (
    f"{'':52} {'n':>5} {'MAPE %':>7} {'median':>7} {'p90':>7} {'bias':>7} {'cover %':>8}  closed form: MAPE, median"
)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Log errors (predicted / measured), half-widths (log) of the intervals, and log errors of the closed form alone;
    by head, NaN where not left out."""

    errors: dict[str, Array]
    widths: dict[str, Array]
    physics: dict[str, Array]


def report(split: str | None = None, refit: str = "nothing") -> Iterator[str]:
    """Lines of the table, from the stored held-out predictions on which the shipped intervals were calibrated.
    `refit` "forests" first trains the corrections of every fold again, "everything" the physics, too (minutes)."""
    chosen = [split] if split else list(SPLITS)
    asked = load(known_speculation=False)
    if refit != "nothing":
        yield from _refit(asked, chosen, physics=refit == "everything")
    if not heldout.FILE.is_file():
        yield "no held-out predictions: run `foundry sim validate --refit everything` first"
        return
    found = left_out(asked)
    yield _HEADER
    for name in chosen:
        yield from _table(asked, name, found[name])


def _refit(asked: Dataset, chosen: list[str], physics: bool) -> Iterator[str]:
    tables = heldout.read_folds()
    if physics:
        clean = load(known_speculation=True)
        for split in chosen:
            for name, fitted in heldout.fit_folds(clean, split):
                tables[name] = fitted
                heldout.save_folds(tables)
                yield f"{name}: constants fitted"
    found = heldout.read() if heldout.FILE.is_file() else {}
    for split in chosen:
        found[split] = heldout.leave_out(asked, tables, split)
        yield f"{split}: forests trained"
    heldout.save(found)


def _table(data: Dataset, split: str, found: LeftOut) -> Iterator[str]:
    errors = found.errors
    recorded = np.array([fully_known(m) for m in data.rows])
    for head in HEADS:
        seen = np.isfinite(errors[head]) & data.current
        if not seen.any():
            continue
        yield _line(f"{split}: {head}", found, head, seen)
        yield _line(f"{split}: {head}, configuration fully recorded", found, head, seen & recorded)
        groups = np.array([_GROUPS[split](m) for m in data.rows])
        for name in sorted(set(groups[seen].tolist())):
            yield _line(f"   {name}", found, head, seen & (groups == name))
    if not np.any(np.isfinite(errors["ttft"])):
        return
    for name, error in tails.held_out(data, heldout.read_folds(), split).items():
        size = 100 * np.abs(np.expm1(error[np.isfinite(error)]))
        if len(size):
            yield f"{f'{split}: ttft {name}':52} {len(size):5d} {size.mean():7.1f} {np.median(size):7.1f}"
    yield from _decisions(data, split, found, recorded)


def _decisions(data: Dataset, split: str, found: LeftOut, recorded: NDArray[np.bool_]) -> Iterator[str]:
    """What each share of the interval costs. A pick that its cautious bound does not allow is not promised."""
    for name, keep in (("", data.current), (", fully recorded", data.current & recorded)):
        yield f"{f'{split}: decisions{name}':42} promised: n, regret, violations %  all: n, regret, violations %"
        for caution in _CAUTIONS:
            picks = decide(data.rows, found.errors, found.widths, keep, caution)
            sure, every = summary([pick for pick in picks if pick.promised]), summary(picks)
            mark = "  (the search's)" if caution == CAUTION else ""
            yield f"   {caution:.2f} of the interval{mark:24}" + "".join(
                f"{d.count:14d} {100 * d.regret:6.1f} {100 * d.violations:6.1f}" for d in (sure, every)
            )


def left_out(data: Dataset) -> dict[str, LeftOut]:
    """What validation knows of each way of leaving out, with the trust and widths that such a request would get from
    models made without its group."""
    p, stored = Prepared(data, fitted_table()), heldout.read()
    found = {split: LeftOut({}, {}, stored[split].physics) for split in SPLITS}
    for head in HEADS:
        s = intervals.sample(p, head, stored, intervals.trust(data, head, stored))
        error, width = intervals.crossed(s)
        for place, split in enumerate(SPLITS):
            mine, values = s.split == place, np.full((2, len(data.rows)), np.nan)
            values[:, s.row[mine]] = error[mine], width[mine]
            found[split].errors[head], found[split].widths[head] = values
    return found


def _line(name: str, found: LeftOut, head: str, keep: NDArray[np.bool_]) -> str:
    error, width, alone = (part[head][keep] for part in (found.errors, found.widths, found.physics))
    relative, inside, physics = np.expm1(error), np.abs(error) <= width, 100 * np.abs(np.expm1(alone))
    size = np.abs(relative)
    return (
        f"{name:52} {keep.sum():5d} {100 * size.mean():7.1f} {100 * np.median(size):7.1f} "
        f"{100 * np.quantile(size, 0.9):7.1f} {100 * np.median(relative):7.1f} {100 * inside.mean():8.1f}"
        f"{physics.mean():20.1f} {np.median(physics):7.1f}"
    )
