"""Names in requests: those of models, which never become a path, of engines and of devices."""

from collections.abc import Iterable
from typing import Any

from foundry_core.errors import Invalid
from foundry_sim.facts import devices
from foundry_sim.facts.architecture import ArchitectureError
from foundry_sim.facts.architectures.catalogue import config_of
from foundry_sim.facts.devices import Device
from foundry_sim.search.launch import ENGINES
from foundry_sim.search.plans import DeviceGroup as SimGroup

from functions.sim.errors import InvalidInput, ModelNotFound
from functions.sim.schemas import DeviceGroup

_KNOWN_DEVICES = "GET /devices lists the known ones."


def known_config(name: str) -> dict[str, Any]:
    """The config that Foundry ships under this name."""
    try:
        return config_of(name)
    except ArchitectureError as error:
        advice = "Register it with its config.json, and send it as model."
        raise ModelNotFound(f"{name!r} is not a model that Foundry ships with.", next_action=advice) from error


def checked(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose model, when it is a name, is a known one."""
    if isinstance(row.get("model"), str):
        known_config(row["model"])
    return row


def refuse_unknown(engines: Iterable[str]) -> None:
    """``InvalidInput`` for an engine that the simulator does not know."""
    for name in sorted(set(engines) - set(ENGINES)):
        raise InvalidInput(f"Engine {name!r} is unknown; known: {', '.join(ENGINES)}.")


def known_device(name: str, where: str = "") -> Device:
    """``Invalid`` (``unknown_device``); ``where`` says in the sentence where the name stood."""
    found = devices.find(name)
    if found is None:
        raise Invalid(f"Device {name!r}{where} is unknown.", code="unknown_device", next_action=_KNOWN_DEVICES)
    return found


def usable_groups(groups: Iterable[DeviceGroup]) -> list[SimGroup]:
    """Those with a device and a node, as the simulator takes them. ``Invalid`` (``no_devices``, ``unknown_device``)."""
    found = [group for group in groups if group.device and group.nodes]
    if not found:
        message = "No device group has a known device and a ready node."
        raise Invalid(message, code="no_devices", next_action=_KNOWN_DEVICES)
    for group in found:
        known_device(group.device or "", f" of group {group.name}")
    return [SimGroup(**group.model_dump()) for group in found]
