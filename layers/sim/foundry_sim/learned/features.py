"""What the regressor may look at: ratios of the physics, and what is known about the engine and the device.

No names of models or devices: only facts that an unseen one has, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from foundry_sim.facts.devices import Device
from foundry_sim.facts.versions import days, software_days
from foundry_sim.physics.efficiency import TODAY_DAYS, family
from foundry_sim.physics.steady import Steady, Traffic
from foundry_sim.physics.step import Shape
from foundry_sim.physics.terms import Array, Terms
from foundry_sim.requests import Case

ENGINES = ("vllm", "sglang", "trtllm", "atom")
VENDORS = ("nvidia", "amd", "intel")
FAMILIES = ("ampere", "ada", "hopper", "blackwell")


@dataclass(frozen=True, slots=True)
class Context:
    """Columns of facts that the closed form does not see. Codes are indexes into the tuples above, or NaN."""

    device: Array  # a number of its own for each device: no feature, it only tells which were measured
    engine: Array
    vendor: Array
    family: Array
    days: Array  # software age: days since 2024-01-01, NaN when unknown
    measured: Array  # day of the measurement or deployment, likewise
    cpu: Array


@dataclass(frozen=True, slots=True)
class Facts:
    """The context of one row."""

    device: float
    engine: float
    vendor: float
    family: float
    days: float
    measured: float
    cpu: float

    def columns(self, count: int) -> Context:
        return Context(*(np.full(count, getattr(self, f.name)) for f in fields(Context)))


def facts(device: Device, engine: str, software: float | None, measured: float | None) -> Facts:
    return Facts(
        device=float(crc32(f"{device.name} {device.memory_bandwidth_bytes_per_s}".encode())),  # a share is another one
        engine=code(ENGINES, engine),
        vendor=code(VENDORS, device.vendor),
        family=code(FAMILIES, family(device).split("_")[0]),
        days=float("nan") if software is None else software,
        measured=float("nan") if measured is None else measured,
        cpu=float(device.is_cpu),
    )


def context(cases: Sequence[Case]) -> Context:
    rows = [facts(c.device, c.engine, _days(c), days(c.request.date)) for c in cases]
    return Context(*(np.array([getattr(r, f.name) for r in rows], dtype=np.float64) for f in fields(Context)))


def code(known: tuple[str, ...], name: str) -> float:
    return float(known.index(name)) if name in known else float("nan")


def _days(c: Case) -> float | None:
    return software_days(c.engine, c.request.engine_version, c.request.date)


def columns(t: Terms, shape: Shape, x: Traffic, s: Steady, known: Context) -> dict[str, Array]:
    """All features by name, in a fixed order; each broadcasts to the number of rows."""
    return {
        **_physics_columns(shape, x, s),
        **_model_columns(t, shape),
        **_software_columns(known),
    }


def matrix(t: Terms, shape: Shape, x: Traffic, s: Steady, known: Context) -> NDArray[np.float32]:
    """The features as rows × columns; each column lies in one piece."""
    found = columns(t, shape, x, s, known)
    table = np.empty((len(found), len(s.tpot_s)), dtype=np.float32)
    for place, values in enumerate(found.values()):
        table[place] = values
    return table.T


def _log(values: Array) -> Array:
    return np.asarray(np.log(np.maximum(values, 1e-12)))


def _physics_columns(shape: Shape, x: Traffic, s: Steady) -> dict[str, Array]:
    p = s.parts
    waiting = np.where(x.load > 0, x.load, s.batch) / np.minimum(s.room, 1e7)
    return {
        "dense_share": p.dense / s.decode_s,
        "expert_share": p.experts / s.decode_s,
        "attention_share": p.attention / s.decode_s,
        "collective_share": p.collectives / s.decode_s,
        "fixed_share": p.fixed / s.decode_s,
        "prefill_share": s.prefill_share,
        "log_decode": _log(s.decode_s),
        "log_batch": _log(s.batch),
        "log_rank_batch": _log(s.batch / shape.dp),
        "log_isl": _log(x.isl),
        "log_osl": _log(x.osl),
        "log_prefill": _log(s.prefill_marginal_s),
        "log_alone": _log(s.prefill_alone_s),
        "log_burst": _log(s.burst_s / s.prefill_alone_s + 0.01),
        "log_waiting": _log(waiting),
        "log_room": _log(np.minimum(s.room, 1e6)),
        "drafted": x.drafted,
        "kind": x.kind,
    }


def _model_columns(t: Terms, shape: Shape) -> dict[str, Array]:
    return {
        "weight_bytes": t.weight_bytes,
        "moe_bytes": t.moe_bytes,
        "kv_bytes": t.kv_bytes,
        "attention_bytes": t.attention_bytes,
        "log_tp": np.log2(shape.tp),
        "log_dp": np.log2(shape.dp),
        "log_ep": np.log2(shape.ep),
        "experts": t.experts,
        "experts_per_token": t.experts_per_token,
        "latent": 1.0 - t.kv_sharded,
        "recurrent": (t.state_bytes > 0) * 1.0,
        "layers": t.layers,
        "log_hidden": _log(t.hidden),
        "log_bandwidth": _log(t.memory_bandwidth),
        "log_dense": _log((t.attention_params + t.mlp_params) / shape.tp),
        "log_experts": _log(t.experts * t.expert_params * t.moe_bytes / (shape.tp * shape.dp) + 1.0),
    }


def _software_columns(known: Context) -> dict[str, Array]:
    engines = {f"engine_{name}": (known.engine == place) * 1.0 for place, name in enumerate(ENGINES)}
    return engines | {
        "vendor": _filled(known.vendor, -1.0),
        "family": _filled(known.family, -1.0),
        "cpu": known.cpu,
        "days": _filled(known.days, _filled(known.measured, TODAY_DAYS)),
        "measured": _filled(known.measured, _filled(known.days, TODAY_DAYS)),
    }


def _filled(values: Array, other: Array | float) -> Array:
    return np.asarray(np.where(np.isnan(values), other, values))
