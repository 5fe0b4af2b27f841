"""How much of its data sheet a device and an engine really deliver: fitted constants, kept as data.

`data/models/efficiency.json`, written by `foundry sim train`, holds a base and factors on it by device family, by
engine and by the software's age. Every efficiency is in (0, 1): no prediction can pass 100 % MFU or MBU.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from math import exp
from typing import Any

from foundry_sim.facts.devices import Device


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Fractions of the data sheet, fixed times in µs, and shape parameters. The defaults are the fit's prior."""

    memory: float = 0.75  # of memory bandwidth, reading dense weights
    kv: float = 0.80  # of memory bandwidth, reading the KV cache
    linear: float = 0.70  # of peak FLOP/s, large GEMM
    moe: float = 0.40  # of the 16-bit peak, expert GEMMs with many rows
    moe_memory: float = 0.90
    moe_eight_bit: float = 0.45  # of the 16-bit expert efficiency, relative to the 8-bit peak
    moe_four_bit: float = 0.60  # the same for 4-bit experts
    moe_half_rows: float = 30.0
    attention: float = 0.50
    link: float = 0.70
    eight_bit: float = 0.95  # of the 16-bit GEMM efficiency, relative to the 8-bit peak
    eight_bit_memory: float = 0.95  # of the 16-bit memory efficiency, reading 8-bit weights
    four_bit: float = 0.85  # the same for 4-bit weights
    four_bit_memory: float = 0.90  # of the memory efficiency, reading 4-bit weights
    half_tokens: float = 12.0
    layer_us: float = 22.0
    moe_layer_us: float = 14.0
    latent_layer_us: float = 10.0
    recurrent_layer_us: float = 5.0
    step_us: float = 900.0
    sequence_us: float = 6.0
    prefill_us: float = 40_000.0
    collective_us: float = 6.0
    collective_hop_us: float = 1.5
    burst: float = 0.3  # share of the start burst in the mean TTFT
    overlap: float = 1.4


FRACTIONS = (
    *("memory", "kv", "linear", "moe", "moe_memory", "attention", "link"),
    *("eight_bit", "eight_bit_memory", "four_bit", "four_bit_memory", "moe_eight_bit", "moe_four_bit"),
)
OVERHEADS = (
    *("layer_us", "moe_layer_us", "latent_layer_us", "recurrent_layer_us", "step_us", "sequence_us", "prefill_us"),
    *("collective_us", "collective_hop_us"),
)
CEILING = 0.97
TODAY_DAYS = 820.0  # 2026-03-31, the end of the training data: age zero


@cache
def _table() -> dict[str, Any]:
    source = files("foundry_sim") / "data" / "models" / "efficiency.json"
    return json.loads(source.read_text()) if source.is_file() else {}


def family(device: Device) -> str:
    """The generation: blackwell, blackwell_ultra and blackwell_workstation differ in what kernels reach."""
    return device.generation


def years_old(days: float | None) -> float:
    """Age of the software before the end of the training data, 0 when unknown, at most three years."""
    return 0.0 if days is None or days != days else min(max((TODAY_DAYS - days) / 365.0, -0.5), 3.0)


@cache
def efficiency(device_family: str, vendor: str, engine: str, age: float) -> Efficiency:
    """Constants of a device family under an engine release; unknown families get their vendor's, engines the base."""
    table = _table()
    return combine(layers(table, device_family, vendor, engine), table.get("aging", {}).get(vendor, {}), age)


def layers(table: Mapping[str, Any], device_family: str, vendor: str, engine: str) -> list[dict[str, float]]:
    """Factors from general to special: operator measurements of the family, base, end-to-end fit of the family (or
    of the one it descends from, or its vendor), engine."""
    families, ancestor = table.get("families", {}), device_family.split("_")[0]
    return [
        table.get("operators", {}).get(device_family, {}),
        table.get("base", {}),
        families.get(device_family) or families.get(ancestor) or families.get(vendor, {}),
        table.get("engines", {}).get(engine, {}),
    ]


def combine(factors: list[dict[str, float]], aging: dict[str, float], age: float) -> Efficiency:
    """The prior times every factor; age makes overheads grow and efficiencies shrink."""
    values = {f.name: float(f.default) for f in fields(Efficiency)}  # type: ignore[arg-type]
    for group in factors:
        for name, factor in group.items():
            values[name] *= factor
    for name in OVERHEADS:
        values[name] *= exp(aging.get("overhead", 0.0) * age)
    for name in FRACTIONS:
        values[name] = min(values[name] * exp(-aging.get("fraction", 0.0) * age), CEILING)
    values["burst"] = min(values["burst"], 1.0)
    return Efficiency(**values)
