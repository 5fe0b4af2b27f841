"""Typed, bounded access to an untrusted config: every complaint names the field."""

from collections.abc import Mapping, Sequence
from typing import Any

from foundry_sim.errors import ArchitectureError

LAYERS_MAX = 1_024
WIDTH_MAX = 1 << 18
VOCAB_MAX = 1 << 23
EXPERTS_MAX = 1 << 13
POSITIONS_MAX = 1 << 31


class MissingField(ArchitectureError):
    """A required field is absent."""


class Reader:
    """Reads fields of one config section, with the family's defaults behind it."""

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None, where: str = "") -> None:
        self._config = config
        self._defaults = defaults or {}
        self._where = where

    def raw(self, *names: str) -> Any:
        """The first of these fields that is present and not null, else the family's default, else None. A field that
        the config sets to null has no default: null means "not used"."""
        for name in names:
            if self._config.get(name) is not None:
                return self._config[name]
        if any(name in self._config for name in names):
            return None
        return next((self._defaults[name] for name in names if name in self._defaults), None)

    def has(self, *names: str) -> bool:
        return self.raw(*names) is not None

    def states(self, name: str) -> bool:
        """Whether the config itself, not a default, gives this field."""
        return self._config.get(name) is not None

    def fail(self, name: str, complaint: str) -> ArchitectureError:
        return ArchitectureError(f"config field '{self._where}{name}' {complaint}")

    def number(self, *names: str, default: int | None = None, low: int = 0, high: int = WIDTH_MAX) -> int:
        """An integer within [low, high]; without default the field is required."""
        value = self.raw(*names)
        if value is None:
            if default is None:
                raise MissingField(f"config field '{self._where}{names[0]}' is missing")
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(names[0], f"must be an integer, not {_shown(value)}")
        if not low <= value <= high:
            raise self.fail(names[0], f"must be between {low:,} and {high:,}, not {value:,}")
        return value

    def ratio(self, *names: str, default: float) -> float:
        value = self.raw(*names)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1024:
            raise self.fail(names[0], f"must be a number between 0 and 1024, not {_shown(value)}")
        return float(value)

    def flag(self, *names: str, default: bool = False) -> bool:
        value = self.raw(*names)
        if value is None:
            return default
        if not isinstance(value, bool | int) or value not in (0, 1):
            raise self.fail(names[0], f"must be true or false, not {_shown(value)}")
        return bool(value)

    def text(self, *names: str, default: str = "") -> str:
        value = self.raw(*names)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.fail(names[0], f"must be text, not {_shown(value)}")
        return value[:200]

    def items(self, *names: str) -> list[Any]:
        """A list of at most LAYERS_MAX × 4 entries, or [] when absent."""
        value = self.raw(*names)
        if value is None:
            return []
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise self.fail(names[0], f"must be a list, not {_shown(value)}")
        if len(value) > LAYERS_MAX * 4:
            raise self.fail(names[0], f"has {len(value):,} entries, more than {LAYERS_MAX * 4:,}")
        return list(value)

    def integers(self, *names: str) -> list[int]:
        """A list of integers, or [] when absent."""
        found = self.items(*names)
        if any(isinstance(item, bool) or not isinstance(item, int) for item in found):
            raise self.fail(names[0], "must hold integers")
        return found

    def per_layer(self, layers: int, *names: str) -> list[Any]:
        """A list with one entry per layer, or [] when absent."""
        values = self.items(*names)
        if values and len(values) < layers:
            raise self.fail(names[0], f"has {len(values)} entries for {layers} layers")
        if any(not isinstance(value, str | int | float | None) for value in values):
            raise self.fail(names[0], "must hold one name or number per layer")
        return values[:layers]

    def section(self, *names: str) -> Mapping[str, Any] | None:
        for name in names:
            value = self._config.get(name)
            if value is None:
                continue
            if not isinstance(value, Mapping):
                raise self.fail(name, f"must be an object, not {_shown(value)}")
            return value
        return None


def _shown(value: Any) -> str:
    return repr(value)[:40]
