"""The bundled architectures and the ways to name a model."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from foundry_sim.architecture import Architecture, from_config
from foundry_sim.errors import ArchitectureError

DATA = Path(__file__).parent.parent / "data" / "architectures"
CONFIG_BYTES_MAX = 8 * 1024 * 1024


@lru_cache(maxsize=1)
def _index() -> dict[str, Path]:
    """Repo id in lower case → its file; ``--`` in a file name stands for the slash."""
    return {path.stem.replace("--", "/").lower(): path for path in sorted(DATA.glob("*.json"))}


def bundled_names() -> list[str]:
    return sorted(path.stem.replace("--", "/") for path in _index().values())


def config_of(name: str) -> dict[str, Any]:
    """The bundled config of that repo id (any case); never a path. ArchitectureError when it is not bundled."""
    path = _index().get(name.strip().lower())
    if path is None:
        raise ArchitectureError(f"model '{name[:120]}' is not bundled")
    return _read(path)


@lru_cache(maxsize=256)
def load(model: str) -> Architecture:
    """A bundled name or a path to a config.json (or the folder that holds it)."""
    path = _index().get(model.strip().lower())
    if path:
        return from_config(_read(path), path.stem.replace("--", "/"))
    local = Path(model)
    if local.is_dir():
        local = local / "config.json"
    if local.suffix == ".json" and local.is_file():
        return from_config(_read(local), local.parent.name or local.stem)
    raise ArchitectureError(f"model '{model[:120]}' is not bundled; give the path of its config.json")


def _read(path: Path) -> dict[str, Any]:
    if path.stat().st_size > CONFIG_BYTES_MAX:
        raise ArchitectureError(f"{path.name} is larger than {CONFIG_BYTES_MAX:,} bytes")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ArchitectureError(f"{path.name} is not valid JSON") from None
    if not isinstance(value, dict):
        raise ArchitectureError(f"{path.name} must hold a JSON object")
    return value
