"""The emulator is hidden behind one module."""

from pathlib import Path

import foundry_local


def test_only_the_engine_names_ministack_modules() -> None:
    root = Path(foundry_local.__file__).parent
    others = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if "ministack." in path.read_text() and path != root / "emulator" / "engine.py"
    ]
    assert others == []
