"""Who may answer for whom: one table for the control plane and gateways, which decide it apart and ship apart."""

import json
from pathlib import Path
from typing import Any


def stand_in_cases() -> list[dict[str, Any]]:
    """``why``, the endpoints ``asked`` and ``other`` (limits and policy), and whether the other ``stands_in``."""
    cases: list[dict[str, Any]] = json.loads(Path(__file__).with_name("stand_in_cases.json").read_text())
    return cases
