"""Fit the efficiency constants: one robust least-squares problem over all measurements, with priors.

Every constant is prior × base × family × engine × age; the logarithms of the factors have normal priors around zero,
so that what the data do not determine stays at the data sheet's prior. Levenberg-Marquardt on pseudo-Huber residuals.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundry_sim.physics.efficiency import Efficiency, combine, family, layers, years_old
from foundry_sim.physics.steady import Traffic, steady
from foundry_sim.physics.step import Shape
from foundry_sim.physics.terms import Array, Terms, efficiency_terms, take
from foundry_sim.train.dataset import DATA, HEADS, Dataset, curve_weight, model_value, timed_whole
from foundry_sim.train.operators import prior

_FAMILY = (
    *("memory", "kv", "linear", "moe", "moe_memory", "attention", "link", "layer_us", "moe_layer_us", "step_us"),
    *("sequence_us", "prefill_us", "collective_us"),
)
_ENGINE = (
    *("kv", "linear", "moe", "moe_memory", "attention", "layer_us", "moe_layer_us", "step_us", "sequence_us"),
    *("prefill_us", "burst", "collective_us", "latent_layer_us"),
)
# How a benchmark starts its requests differs between sources: the constants are those of the first, InferenceX.
_SOURCES = ("silicon-nvidia", "trtllm-perf")
_SOURCE = ("burst", "prefill_us")
_SIGMA = {"base": 0.7, "family": 0.10, "engine": 0.12, "aging": 0.3, "source": 0.7}
_UNTABLED = 0.3  # of a family (AMD, Intel) whose kernels nobody has published tables of
_OWN_SIGMA = {
    # Kernels are measured by themselves (operators.py and the defaults of Efficiency): serving cannot change them much.
    **{("base", n): 0.1 for n in ("linear", "eight_bit", "eight_bit_memory", "four_bit", "four_bit_memory")},
    **{("base", n): 0.15 for n in ("memory", "moe_memory")},
    **{("base", n): 0.2 for n in ("kv", "attention", "overlap")},
    **{("base", n): 0.3 for n in ("moe", "moe_eight_bit", "moe_four_bit")},
    **{("base", n): 0.4 for n in ("half_tokens", "moe_half_rows")},
    **{("engine", "linear"): 0.05, ("family", "linear"): 0.05, ("engine", "moe"): 0.25},
    # How a prompt is admitted differs between engines by factors, not by percents.
    **{("engine", "prefill_us"): 0.4, ("engine", "burst"): 0.4, ("engine", "sequence_us"): 0.2},
}
_ENGINES = ("vllm", "sglang", "trtllm")
_PRIOR = 0.04  # weight of the priors against one measurement
_ROBUST = 0.25  # log error beyond which a residual counts linearly
_HEAD_WEIGHT = {"tpot": 1.0, "ttft": 0.4, "rate": 1.0}
_STEP = 0.02
_SETTLED = 1e-3  # of the cost
_PLURAL = {"family": "families", "engine": "engines", "aging": "aging", "source": "sources"}

Key = tuple[str, str, str]  # (level, group, name)


@dataclass(frozen=True, slots=True)
class _Slice:
    """The rows that one group of parameters touches."""

    rows: NDArray[np.intp]
    groups: tuple["Group", ...]
    member: NDArray[np.intp]
    whole: NDArray[np.bool_]  # static batches timed from start to end
    terms: Terms
    shape: Shape
    traffic: Traffic


class PhysicsFit:
    """The least-squares problem over a dataset; `keep` selects its training rows."""

    def __init__(self, data: Dataset, keep: NDArray[np.bool_]) -> None:
        measured = np.any([np.isfinite(data.targets[h]) for h in HEADS], axis=0)
        index = np.flatnonzero(keep & measured)
        self.data = data.take(index)
        self.groups, self.member = _combos(self.data)
        self.keys = list(_keys(self.groups))
        self.points = [(h, np.flatnonzero(np.isfinite(self.data.targets[h]))) for h in HEADS]
        self.target = np.concatenate([self.data.targets[h][i] for h, i in self.points])
        self.weight = np.concatenate([_HEAD_WEIGHT[h] * curve_weight(self.data, h)[i] for h, i in self.points])
        self.sigma = np.array([_sigma(key) for key in self.keys])
        self.slices = {group: self._slice(group) for group in {(k[0], k[1]) for k in self.keys}}

    def run(self, rounds: int = 16) -> dict[str, Any]:
        """The fitted table, as efficiency.json holds it. One round that gains little may be followed by one that gains
        a lot (its damping was wrong), so it takes two in a row to end the fit."""
        theta = np.zeros(len(self.keys))
        value = self._values(theta)
        cost, damping, settled = self._cost(value, theta), 1e-2, 0
        for _ in range(rounds):
            step = self._step(self._jacobian(theta, value), value, theta, cost, damping)
            if step is None:
                break
            theta, value, new_cost, damping = step
            settled = settled + 1 if (cost - new_cost) / cost < _SETTLED else 0
            cost = new_cost
            if settled == 2:
                break
        return with_vendors(table(self.keys, theta), self.data)

    def _step(
        self, jacobian: Array, value: Array, theta: Array, cost: float, damping: float
    ) -> tuple[Array, Array, float, float] | None:
        residual = value - self.target
        weight = self.weight / np.sqrt(1.0 + (residual / _ROBUST) ** 2)
        normal = jacobian.T @ (jacobian * weight[:, None]) + np.diag(_PRIOR / self.sigma**2)
        gradient = jacobian.T @ (weight * residual) + _PRIOR * theta / self.sigma**2
        for _ in range(6):
            move = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -gradient)
            candidate = theta + np.clip(move, -0.7, 0.7)
            found = self._values(candidate)
            new_cost = self._cost(found, candidate)
            if new_cost < cost:
                return candidate, found, new_cost, max(damping / 5, 1e-5)
            damping *= 5
        return None

    def _cost(self, value: Array, theta: Array) -> float:
        residual = (value - self.target) / _ROBUST
        loss = self.weight * _ROBUST**2 * (np.sqrt(1.0 + residual**2) - 1.0)
        return float(2.0 * loss.sum() + _PRIOR * ((theta / self.sigma) ** 2).sum())

    def _slice(self, group: tuple[str, str]) -> _Slice:
        level, name = group
        touched = np.array([_touches(level, name, g) for g in self.groups])
        rows = np.flatnonzero(touched[self.member])
        present, member = np.unique(self.member[rows], return_inverse=True)
        groups = tuple(self.groups[i] for i in present)
        whole = timed_whole([self.data.rows[i] for i in rows])
        f = self.data.frame
        return _Slice(rows, groups, member, whole, take(f.terms, rows), _take(f.shape, rows), _take(f.traffic, rows))

    def _values(self, theta: Array, group: tuple[str, str] = ("base", "")) -> Array:
        """Model values of all points; rows outside the group's slice are NaN."""
        part = self.slices[group]
        terms = self._terms(theta, part)
        state = steady(terms, part.shape, part.traffic)
        full = np.full((len(HEADS), len(self.data.rows)), np.nan)
        for place, head in enumerate(HEADS):
            full[place, part.rows] = model_value(head, state, part.whole)
        return np.concatenate([full[place, index] for place, (_, index) in enumerate(self.points)])

    def _terms(self, theta: Array, part: _Slice) -> Terms:
        fitted = table(self.keys, theta)
        return replace(part.terms, **_columns(fitted, part.groups, part.member))

    def _jacobian(self, theta: Array, value: Array) -> Array:
        columns = np.zeros((len(value), len(theta)))
        for place, (level, group, _) in enumerate(self.keys):
            moved = theta.copy()
            moved[place] += _STEP
            found = self._values(moved, (level, group))
            columns[:, place] = np.where(np.isnan(found), 0.0, (found - value) / _STEP)
        return columns


def apply(fitted: Mapping[str, Any], data: Dataset) -> Terms:
    """The dataset's terms under this table of constants, as for a request: without its source's own."""
    groups, member = _combos(data)
    return replace(data.frame.terms, **_columns({**fitted, "sources": {}}, groups, member))


def _columns(fitted: Mapping[str, Any], groups: Sequence["Group"], member: NDArray[np.intp]) -> dict[str, Array]:
    values = [efficiency_terms(_constants(fitted, g), g[4], g[5]) for g in groups]
    return {name: np.array([v[name] for v in values])[member] for name in values[0]}


# Family, vendor, engine, age, weight bytes, MoE bytes, source.
Group = tuple[str, str, str, float, float, float, str]


def _combos(data: Dataset) -> tuple[list[Group], NDArray[np.intp]]:
    found: dict[Group, int] = {}
    member = []
    f = data.frame
    for i, (c, m) in enumerate(zip(f.cases, data.rows, strict=True)):
        age = years_old(float(f.context.days[i]))
        group = (
            family(c.device),
            c.device.vendor,
            c.engine,
            age,
            float(f.terms.weight_bytes[i]),
            float(f.terms.moe_bytes[i]),
            m.source if m.source in _SOURCES else "",
        )
        member.append(found.setdefault(group, len(found)))
    return list(found), np.array(member, np.intp)


def _touches(level: str, name: str, g: Group) -> bool:
    return level == "base" or name == {"family": g[0], "engine": g[2], "aging": g[1], "source": g[6]}[level]


def _keys(groups: Sequence[Group]) -> Iterator[Key]:
    yield from (("base", "", f.name) for f in fields(Efficiency))
    for name in sorted({g[0] for g in groups}):
        yield from (("family", name, constant) for constant in _FAMILY)
    for name in sorted({g[2] for g in groups} & set(_ENGINES)):
        yield from (("engine", name, constant) for constant in _ENGINE)
    for name in ("amd", "nvidia"):
        yield from (("aging", name, kind) for kind in ("fraction", "overhead"))
    for name in sorted({g[6] for g in groups} - {""}):
        yield from (("source", name, constant) for constant in _SOURCE)


def _sigma(key: Key) -> float:
    level, group, name = key
    if level == "family" and group not in _operators() and name != "prefill_us":
        return _UNTABLED
    return _OWN_SIGMA.get((level, name), _SIGMA[level])


def _constants(fitted: Mapping[str, Any], g: Group) -> Efficiency:
    source = fitted["sources"].get(g[6], {})
    return combine([*layers(fitted, g[0], g[1], g[2]), source], fitted["aging"].get(g[1], {}), g[3])


@cache
def _operators() -> dict[str, Any]:
    return prior(DATA / "training")


def table(keys: Sequence[Key], theta: Array) -> dict[str, Any]:
    """Parameters → the structure of efficiency.json; aging rates are logarithms per year, all others factors."""
    groups: dict[str, Any] = {plural: {} for plural in _PLURAL.values()}
    found: dict[str, Any] = {"operators": _operators(), "base": {}, **groups}
    for (level, group, name), value in zip(keys, theta, strict=True):
        factor = float(value) if level == "aging" else float(np.exp(value))
        if level == "base":
            found["base"][name] = factor
        else:
            found[_PLURAL[level]].setdefault(group, {})[name] = factor
    return found


def with_vendors(fitted: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """Adds what a family without measurements gets: the mean factors of its vendor's families, by rows."""
    count = Counter((c.device.vendor, family(c.device)) for c in data.frame.cases)
    families = dict(fitted["families"])
    for vendor in sorted({v for v, _ in count}):
        own = {f: n for (v, f), n in count.items() if v == vendor}
        names = sorted({name for f in own for name in fitted["families"][f]})
        families[vendor] = {
            name: float(
                np.exp(np.average([np.log(fitted["families"][f][name]) for f in own], weights=list(own.values())))
            )
            for name in names
        }
    return fitted | {"families": families}


def _take(columns: Any, rows: NDArray[np.intp]) -> Any:
    return type(columns)(*(getattr(columns, f.name)[rows] for f in fields(columns)))
