"""Names in requests: those of models, which never become a path, and of engines."""

from collections.abc import Iterable
from typing import Any

from foundry_sim.facts.architecture import ArchitectureError
from foundry_sim.facts.architectures.catalogue import config_of
from foundry_sim.search.launch import ENGINES

from functions.sim.errors import InvalidInput, ModelNotFound


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
