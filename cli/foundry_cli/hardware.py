"""What is asked about, as people type it: models, devices, configurations to leave out."""

import json
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_cli.errors import CliError

if TYPE_CHECKING:
    from foundry_sim.facts.devices import Device
    from foundry_sim.search.plans import DeviceGroup, SimulationRequest
    from pydantic_core import ErrorDetails

EXAMPLE = "foundry simulate --model meta-llama/Llama-3.1-8B --devices h100_sxm:1x8 --concurrency 32 --ttft 500"
# Fields of a request whose options have other names.
_OPTIONS = {
    "rate_per_s": "--rate",
    "ttft_ms": "--ttft",
    "tokens_per_second": "--tps",
    "e2e_ms": "--e2e",
    "device_groups": "--devices",
    "adapters": "--lora",
    "rank": "--lora-rank",
}
_SHAPE = "DEVICE[:COUNT or :NODESxDEVICES][@USD]: 1 to 4,096 nodes of 1 to 72 devices, at most 1,000,000 USD each"
_BLOCK = "--block engine=vllm,device=l40s,tp=4,reason=TEXT"
_NUMBERS = ("tp", "pp", "ep")
_TEXTS = ("engine", "device", "weights")


def refuse_unknown(engines: list[str]) -> None:
    """``CliError`` for an engine that the simulator does not know."""
    from foundry_sim.search.launch import ENGINES

    for name in engines:
        if name not in ENGINES:
            raise CliError(f"Engine {name[:60]!r} is unknown; known are {', '.join(ENGINES)}.", EXAMPLE)


def device_groups(devices: list[str]) -> list["DeviceGroup"]:
    """``h100_sxm:2x8@3.50``: device, nodes × devices per node, price in USD; the latter two have defaults. One number
    alone counts devices, in as few nodes as hold them."""
    from foundry_sim.search.plans import DeviceGroup

    found: list[DeviceGroup] = []
    for item in [part.strip() for text in devices for part in text.split(",") if part.strip()]:
        body, _, price = item.partition("@")
        name, _, size = body.partition(":")
        try:
            known = _device(name)
            nodes, each = _size(size, known.devices_per_node)
            found.append(
                DeviceGroup(
                    name=_unused(name, found),
                    device=known.name,
                    nodes=nodes,
                    devices_per_node=each,
                    price_nanos_per_hour=round(float(price) * 1e9) if price else None,
                )
            )
        except (ValueError, OverflowError):
            raise CliError(f"'{item[:60]}' is not {_SHAPE}.", EXAMPLE) from None
    if not found:
        raise CliError("Say on what to run: --devices, or --cluster for a registered one.", EXAMPLE)
    return found


def _device(name: str) -> "Device":
    from foundry_sim.facts.devices import find, names

    known = find(name)
    if known is None:
        raise CliError(f"Device {name[:60]!r} is unknown; known are {', '.join(names())}.", EXAMPLE)
    return known


def _size(text: str, each: int) -> tuple[int, int]:
    nodes, cross, per_node = text.lower().partition("x")
    if cross or not nodes:
        return int(nodes or 1), int(per_node or each)
    count = int(nodes)
    widest = max((n for n in range(1, each + 1) if count % n == 0), default=1)
    return count // widest, widest


def _unused(name: str, found: list["DeviceGroup"]) -> str:
    taken = {group.name for group in found}
    return name if name not in taken else f"{name}-{len(found) + 1}"


def model_of(model: str) -> str | dict[str, Any]:
    """A name stays a name; a file is read here, so that the request is complete in itself."""
    path = Path(model)
    try:
        path = path / "config.json" if path.is_dir() else path
        if path.suffix != ".json" or not path.is_file():
            return model
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise CliError(f"{model[:200]} is not a readable config.json.") from None
    if not isinstance(value, dict):
        raise CliError(f"{model[:200]} does not hold a JSON object.")
    value.setdefault("_name_or_path", path.parent.name or path.stem)
    return value


def adapters_of(count: int, rank: int) -> dict[str, int] | None:
    """LoRA adapters that are held at once; None for none."""
    return {"adapters": count, "rank": rank} if count else None


def blocked_configurations(texts: list[str]) -> list[dict[str, Any]]:
    """``engine=vllm,tp=4,reason=out of memory``: fields that all match; the reason is the rest of the text."""
    return [_blocked(text) for text in texts]


def _blocked(text: str) -> dict[str, Any]:
    fields, _, reason = text.partition("reason=")
    pairs = [part.partition("=") for part in fields.split(",") if part.strip()]
    found = {name.strip(): value.strip() for name, _, value in pairs}
    if not found or not found.keys() <= {*_TEXTS, *_NUMBERS} or not all(found.values()):
        raise CliError(f"'{text[:60]}' names no configuration: fields are {', '.join((*_TEXTS, *_NUMBERS))}.", _BLOCK)
    try:
        numbers = {name: int(value) for name, value in found.items() if name in _NUMBERS}
    except ValueError:
        raise CliError(f"'{text[:60]}': {', '.join(_NUMBERS)} are whole numbers.", _BLOCK) from None
    refuse_unknown([found["engine"]] if "engine" in found else [])
    device = {"device": _device(found["device"]).name} if "device" in found else {}
    return {**found, **numbers, **device, "reason": reason.strip()}


def request_of(fields: dict[str, Any]) -> "SimulationRequest":
    """The request; ``CliError`` in the words of the options when a value is out of its range."""
    from foundry_sim.search.plans import SimulationRequest
    from pydantic import ValidationError

    try:
        return SimulationRequest(**fields)
    except ValidationError as error:
        raise CliError(_worded(error.errors()[0]), "foundry simulate --help") from None


def _worded(error: "ErrorDetails") -> str:
    field, value = str(error["loc"][-1]) if error["loc"] else "request", error["input"]
    if field == "workload":
        return "Give either --concurrency or --rate, not both."
    option = _OPTIONS.get(field, f"--{field.replace('_', '-')}")
    if isinstance(value, float) and not isfinite(value):
        return f"{option}: {value} is not a number to compare with."
    if isinstance(value, int | float):
        return f"{option}: {value} is out of range: it {error['msg'].replace('Input should', 'must')}."
    return f"{option}: {error['msg']}."
