"""GPUs, accelerators and CPUs: peak by format, bandwidth, memory, links, power and assumed prices."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from foundry_sim.errors import DeviceError
from foundry_sim.facts.precision import canonical

__all__ = ["Device", "DeviceError", "Purchase", "device", "find", "names", "prices_as_of"]

Purchase = Literal["on_demand", "spot", "owned"]
_DATA = Path(__file__).parents[1] / "data" / "devices.json"
# The matrix unit that a weight or activation format runs on.
_UNIT = MappingProxyType(
    {"nvfp4": "fp4", "mxfp4": "fp4", "mxfp8": "fp8", "mxfp6": "fp8", "tf32": "fp32", "int4": "", "nf4": "", "int3": ""}
)


@dataclass(frozen=True, slots=True)
class Device:
    """One device as software sees it. ``memory_bytes`` is what the driver reports as total, not the marketing
    figure; FLOP/s are dense; ``link_bytes_per_s`` is per device and direction among ``link_domain_devices``."""

    name: str
    title: str
    vendor: str
    generation: str
    memory_bytes: int
    memory_bandwidth_bytes_per_s: float
    peak_flops: Mapping[str, float]
    link_bytes_per_s: float
    link_kind: str
    link_domain_devices: int
    devices_per_node: int
    network_bytes_per_s: float
    power_w: float
    price_nanos_per_hour: Mapping[str, int]
    source: str = ""

    @property
    def is_cpu(self) -> bool:
        return self.name.startswith("xeon")

    def supports(self, number_format: str) -> bool:
        """Whether the matrix units take this format as input (weight-only formats always run, dequantised)."""
        unit = _UNIT.get(canonical(number_format), canonical(number_format))
        return unit == "" or unit in self.peak_flops

    def flops_for(self, activations: str) -> float:
        """Dense FLOP/s with inputs of this format; formats without a unit run on the 16-bit one."""
        name = canonical(activations)
        unit = _UNIT.get(name, name)
        return self.peak_flops.get(unit) or self.peak_flops.get("bf16") or self.peak_flops["fp16"]


@lru_cache(maxsize=1)
def _catalogue() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(_DATA.read_bytes())
    return value


@lru_cache(maxsize=1)
def _by_alias() -> dict[str, str]:
    table = {}
    for name, facts in _catalogue()["devices"].items():
        for alias in (name, facts["title"], *facts["aliases"]):
            table[_plain(alias)] = name
    return table


def _plain(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())


def names() -> list[str]:
    return sorted(_catalogue()["devices"])


def prices_as_of() -> tuple[str, str]:
    """Month of the bundled price assumptions, and the sentence that says what they are."""
    prices = _catalogue()["prices"]
    return prices["as_of"], prices["note"]


def find(name: str) -> Device | None:
    """The device of this name or alias (product labels of the node included), or None."""
    key = _by_alias().get(_plain(str(name)[:120]))
    return _load(key) if key else None


def device(name: str) -> Device:
    """As ``find``, but DeviceError when unknown."""
    found = find(name)
    if found is None:
        close = get_close_matches(_plain(str(name)[:60]), _by_alias(), 3, 0.4)
        near = dict.fromkeys(_by_alias()[alias] for alias in close)
        advice = f"the nearest names are {', '.join(near)}" if near else "`foundry sim devices` lists the known ones"
        raise DeviceError(f"device '{str(name)[:60]}' is unknown; {advice}")
    return found


@lru_cache(maxsize=64)
def _load(key: str) -> Device:
    facts = dict(_catalogue()["devices"][key])
    facts["peak_flops"] = MappingProxyType(facts["peak_flops"])
    facts["price_nanos_per_hour"] = MappingProxyType(facts["price_nanos_per_hour"])
    for extra in ("aliases", "memory_note", "price_note"):
        facts.pop(extra)
    return Device(name=key, **facts)
