"""What the regressor may look at: ratios of the physics, and what is known about the engine and the device.

No names of models or devices: only facts that an unseen one has, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from foundry_sim.devices import Device
from foundry_sim.requests import Case
from foundry_sim.terms import Array
from foundry_sim.versions import software_days

ENGINES = ("vllm", "sglang", "trtllm", "atom")
VENDORS = ("nvidia", "amd", "intel")
GENERATIONS = ("ampere", "ada", "hopper", "blackwell")


@dataclass(frozen=True, slots=True)
class Context:
    """Columns of facts that the closed form does not see. Codes are indexes into the tuples above, or NaN."""

    engine: Array
    vendor: Array
    generation: Array
    days: Array  # software age: days since 2024-01-01, NaN when unknown
    cpu: Array


@dataclass(frozen=True, slots=True)
class Facts:
    """The context of one row."""

    engine: float
    vendor: float
    generation: float
    days: float
    cpu: float

    def columns(self, count: int) -> Context:
        return Context(*(np.full(count, getattr(self, f.name)) for f in fields(Context)))


def facts(device: Device, engine: str, days: float | None) -> Facts:
    return Facts(
        engine=code(ENGINES, engine),
        vendor=code(VENDORS, device.vendor),
        generation=code(GENERATIONS, device.generation),
        days=float("nan") if days is None else days,
        cpu=float(device.is_cpu),
    )


def context(cases: Sequence[Case]) -> Context:
    rows = [facts(c.device, c.engine, _days(c)) for c in cases]
    return Context(*(np.array([getattr(r, f.name) for r in rows], dtype=np.float64) for f in fields(Context)))


def code(known: tuple[str, ...], name: str) -> float:
    return float(known.index(name)) if name in known else float("nan")


def _days(c: Case) -> float | None:
    return software_days(c.engine, c.request.engine_version, c.request.date)
