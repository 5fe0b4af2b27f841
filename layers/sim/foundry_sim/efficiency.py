"""How much of its data sheet a device and an engine really deliver: fitted constants, kept as data.

`data/models/efficiency.json`, written by `foundry sim train`, holds global defaults, then overrides by vendor and by
device generation, then factors by engine. Every efficiency is in (0, 1]: no prediction can pass 100 % MFU or MBU.
"""

import json
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any

from foundry_sim.devices import Device


@dataclass(frozen=True, slots=True)
class Efficiency:
    memory: float = 0.75  # of memory bandwidth, reading dense weights
    kv: float = 0.60  # of memory bandwidth, reading the KV cache
    linear: float = 0.70  # of peak FLOP/s, large GEMM
    moe: float = 0.45
    moe_memory: float = 0.55
    attention: float = 0.50
    half_tokens: float = 32.0
    layer_us: float = 22.0
    moe_layer_us: float = 14.0
    step_us: float = 900.0
    sequence_us: float = 6.0
    prefill_us: float = 12_000.0
    collective_us: float = 6.0
    collective_hop_us: float = 1.5
    link: float = 0.70
    overlap: float = 4.0


_FRACTIONS = ("memory", "kv", "linear", "moe", "moe_memory", "attention", "link")


@cache
def _table() -> dict[str, Any]:
    source = files("foundry_sim") / "data" / "models" / "efficiency.json"
    return json.loads(source.read_text()) if source.is_file() else {}


def efficiency(device: Device, engine: str) -> Efficiency:
    """Constants for this device under this engine; new generations get their vendor's, unknown engines the defaults."""
    table = _table()
    merged = replace(Efficiency(), **table.get("default", {}))
    for group in (table.get("vendors", {}).get(device.vendor), table.get("generations", {}).get(device.generation)):
        merged = replace(merged, **(group or {}))
    return _scaled(merged, table.get("engines", {}).get(engine, {}))


def _scaled(base: Efficiency, factors: dict[str, float]) -> Efficiency:
    values = {f.name: getattr(base, f.name) * factors.get(f.name, 1.0) for f in fields(Efficiency)}
    return Efficiency(**{k: min(v, 1.0) if k in _FRACTIONS else v for k, v in values.items()})
