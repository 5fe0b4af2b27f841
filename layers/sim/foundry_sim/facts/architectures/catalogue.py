"""The bundled architectures and the ways to name a model."""

import json
import re
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from foundry_sim.errors import ArchitectureError
from foundry_sim.facts.architecture import Architecture, from_config

DATA = Path(__file__).parents[2] / "data" / "architectures"
CONFIG_BYTES_MAX = 8 * 1024 * 1024


@lru_cache(maxsize=1)
def _index() -> dict[str, Path]:
    """Repo id in lower case → its file; ``--`` in a file name stands for the slash."""
    return {path.stem.replace("--", "/").lower(): path for path in sorted(DATA.glob("*.json"))}


def bundled_names() -> list[str]:
    return sorted(path.stem.replace("--", "/") for path in _index().values())


@lru_cache(maxsize=1)
def _aliases() -> dict[str, str]:
    """Other repo ids with the same config (instruct and base models, re-uploads), in lower case."""
    table: dict[str, str] = json.loads((DATA.parent / "architecture_aliases.json").read_bytes())
    return {alias.lower(): name.lower() for alias, name in table.items()}


def _bundled(model: str) -> Path | None:
    """By repo id, by alias, or by the part after the slash when only one bundled model has it."""
    key = model.strip().lower()
    key = _aliases().get(key, key)
    found = _index().get(key)
    if found or "/" in key:
        return found
    same = {_aliases().get(name, name) for name in (*_index(), *_aliases()) if name.rsplit("/", 1)[-1] == key}
    return _index()[same.pop()] if len(same) == 1 else None


# Endings by which re-quantised repositories are named, and the format that each means. The longest match counts.
_QUANTISED: dict[str, dict[str, Any]] = {
    "fp8": {"quant_method": "fp8"},
    "fp8-kv": {"quant_method": "fp8", "kv_cache_quant_algo": "FP8"},
    "fp8-dynamic": {"quant_method": "fp8"},
    "nvfp4": {"quant_algo": "NVFP4"},
    "fp4": {"quant_algo": "NVFP4"},
    "mxfp4": {"quant_method": "quark", "global_quant_config": {"weight": "mxfp4", "input_tensors": "mxfp4"}},
    "awq": {"quant_method": "awq", "bits": 4},
    "awq-int4": {"quant_method": "awq", "bits": 4},
    "bnb-4bit": {"load_in_4bit": True},
    "gptq-int4": {"quant_method": "gptq", "bits": 4},
    "gptq-int8": {"quant_method": "gptq", "bits": 8},
    "int4": {"quant_method": "gptq", "bits": 4},
    "quantized.w4a16": {"quant_method": "gptq", "bits": 4},
    "quantized.w8a8": {"load_in_8bit": True},
}


_REVISION = re.compile(r"-(preview|v\d+)$")  # …-MXFP4-Preview, …-NVFP4-v2


def _derived(model: str) -> tuple[Path, dict[str, Any]] | None:
    """A re-quantised repository of a bundled model, such as ``RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic``: the base
    model's facts with the format that the name's ending states."""
    tail = _REVISION.sub("", model.strip().lower().rsplit("/", 1)[-1])
    for ending in sorted(_QUANTISED, key=len, reverse=True):
        if tail.endswith("-" + ending):
            path = _bundled(tail[: -len(ending) - 1])
            return (path, _QUANTISED[ending]) if path else None
    return None


def load(model: str) -> Architecture:
    """A bundled name or alias, a re-quantised repo of one, or a path to a config.json (or the folder that holds it).

    An alias keeps its own name: an engine must load the weights that were asked for, not those of the base model.
    """
    path = _bundled(model)
    if path:
        return _load_bundled(path, model.strip() if model.strip().lower() in _aliases() else "")
    derived = _derived(model)
    if derived:
        return _load_derived(derived[0], model.strip())
    return _load_local(model)


@lru_cache(maxsize=512)
def _load_bundled(path: Path, alias: str = "") -> Architecture:
    return from_config(_read(path), alias or path.stem.replace("--", "/"))


@lru_cache(maxsize=512)
def _load_derived(path: Path, name: str) -> Architecture:
    return from_config(config_of(name), name)


def _load_local(model: str) -> Architecture:
    local = Path(model)
    try:
        local = local / "config.json" if local.is_dir() else local
        found = local.suffix == ".json" and local.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        known = f"{_near(model[:120])}`foundry sim models` lists those that are"
        raise ArchitectureError(f"model '{model[:120]}' is not bundled ({known}); give the path of its config.json")
    return from_config(_read(local), local.parent.name or local.stem)


@lru_cache(maxsize=512)
def _near(model: str) -> str:
    """Bundled names that a mistyped one may mean."""
    close = get_close_matches(model.strip().lower(), list(_index()), 3, 0.8)
    names = ", ".join(_index()[name].stem.replace("--", "/") for name in close)
    return f"near are {names}; " if names else ""


def config_of(model: str) -> dict[str, Any]:
    """The bundled config.json facts of a repo id or alias; ArchitectureError when it is not bundled."""
    path = _bundled(model)
    if path:
        return _read(path)
    derived = _derived(model)
    if derived is None:
        raise ArchitectureError(f"model '{model[:120]}' is not bundled; give its config.json")
    config = _read(derived[0])
    quantised = dict(derived[1])
    if quantised.keys() & {"quant_algo", "global_quant_config"} and "kv_lora_rank" in json.dumps(config):
        quantised["modules_to_not_convert"] = ["*.self_attn*"]  # four bits leave a latent attention as it is
    return {**config, "quantization_config": quantised}


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
