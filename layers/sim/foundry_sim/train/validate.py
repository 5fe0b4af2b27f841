"""`foundry sim validate`: errors on groups kept out of training, as a table."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from foundry_sim.learned.regressor import HEADS, Regressor
from foundry_sim.learned.regressor import load as load_regressor
from foundry_sim.physics.terms import Array
from foundry_sim.train import heldout, tails
from foundry_sim.train.dataset import Dataset, fully_known, load
from foundry_sim.train.decisions import decide
from foundry_sim.train.heldout import SPLITS, Heldout
from foundry_sim.train.measurement import Measurement

_GROUPS: dict[str, Callable[[Measurement], str]] = {
    "curve": lambda m: f"{m.device} {m.engine}",
    "model": lambda m: m.model,
    "device": lambda m: m.device,
    "time": lambda m: m.engine,
}
_HEADER = f"{'':52} {'n':>5} {'MAPE %':>7} {'median':>7} {'p90':>7} {'bias':>7} {'cover %':>8}"


def report(split: str | None = None, refit: str = "nothing") -> Iterator[str]:
    """Lines of the table, from the stored held-out predictions on which the shipped intervals were calibrated.
    `refit` "forests" first trains the corrections of every fold again, "everything" the physics, too (minutes)."""
    chosen = [split] if split else list(SPLITS)
    asked = load(known_speculation=False)
    if refit != "nothing":
        yield from _refit(asked, chosen, physics=refit == "everything")
    stored, trained = heldout.read(), load_regressor()
    if trained is None:
        yield "no trained model: run `foundry sim train` first"
        return
    yield _HEADER
    for name in chosen:
        yield from _table(asked, name, stored[name], trained)


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


def _table(data: Dataset, split: str, held: Heldout, trained: Regressor) -> Iterator[str]:
    errors, widths = shipped(data, split, held, trained)
    for head in HEADS:
        seen = np.isfinite(errors[head]) & data.current
        if not seen.any():
            continue
        yield _line(f"{split}: {head}", errors[head], widths[head], seen)
        sure = seen & np.array([fully_known(m) for m in data.rows])
        yield _line(f"{split}: {head}, configuration fully recorded", errors[head], widths[head], sure)
        groups = np.array([_GROUPS[split](m) for m in data.rows])
        for name in sorted(set(groups[seen].tolist())):
            yield _line(f"   {name}", errors[head], widths[head], seen & (groups == name))
    if not np.any(np.isfinite(errors["ttft"])):
        return
    for name, error in tails.held_out(data, heldout.read_folds(), split).items():
        size = 100 * np.abs(np.expm1(error[np.isfinite(error)]))
        if len(size):
            yield f"{f'{split}: ttft {name}':52} {len(size):5d} {size.mean():7.1f} {np.median(size):7.1f}"
    picks = decide(
        data.rows,
        np.where(data.current, errors["tpot"], np.nan),
        np.where(data.current, errors["ttft"], np.nan),
        errors["tpot"] + UPPER * widths["tpot"],
        errors["ttft"] + UPPER * widths["ttft"],
    )
    yield (
        f"{split}: {picks.questions} decisions, regret {100 * picks.regret:.1f} %, "
        f"violations {100 * picks.violations:.1f} %, unanswered {100 * picks.unanswered:.1f} %"
    )


UPPER = 0.5  # of the interval's half-width that a search adds before it trusts a configuration


def shipped(data: Dataset, split: str, held: Heldout, trained: Regressor) -> tuple[dict[str, Array], dict[str, Array]]:
    """Held-out log errors and interval half-widths, with the trust and stretch that a request of this kind gets."""
    from foundry_sim.train.fit import fitted_table
    from foundry_sim.train.fit_residual import Prepared

    columns = np.ascontiguousarray(Prepared(data, fitted_table()).features.T)
    novelty = 0 if split == "curve" else 1
    errors, widths = {}, {}
    for name in HEADS:
        head = trained.heads[name]
        trust = head.trust[0 if split == "time" else novelty]
        errors[name] = held.physics[name] + trust * (held.corrected[name] - held.physics[name])
        widths[name] = np.exp(np.clip(head.scale.predict(columns), -4.0, 1.0)) * head.stretch[novelty]
    return errors, widths


def _line(name: str, error: Array, width: Array, keep: NDArray[np.bool_]) -> str:
    relative, inside = np.expm1(error[keep]), np.abs(error[keep]) <= width[keep]
    size = np.abs(relative)
    return (
        f"{name:52} {keep.sum():5d} {100 * size.mean():7.1f} {100 * np.median(size):7.1f} "
        f"{100 * np.quantile(size, 0.9):7.1f} {100 * np.median(relative):7.1f} {100 * inside.mean():8.1f}"
    )
