"""Waiting for what the emulator saves by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def wait_for_snapshot(file: Path, change: Callable[[], Any], eventually: Callable[[Callable[[], Any]], Any]) -> None:
    """Return once ``file`` holds all that was acknowledged before the call. ``change`` makes something to save."""
    before = _written(file)
    change()
    # The next one may have been begun before the call; the one after it was not.
    first = eventually(lambda: _written(file) != before and _written(file))
    change()
    eventually(lambda: _written(file) != first)


def _written(file: Path) -> int:
    """A number that is another for every file renamed to this name."""
    return file.stat().st_mtime_ns if file.exists() else 0
