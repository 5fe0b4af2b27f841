"""What all readers of published tables need."""

import re
from collections import defaultdict
from collections.abc import Iterator

Row = dict[str, str]


def number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def runs(rows: list[Row]) -> Iterator[tuple[Row, dict[str, float]]]:
    """Long format → (first row of the run, its metrics)."""
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row["run_id"]].append(row)
    for run in grouped.values():
        yield run[0], {r["metric"]: float(r["value"]) for r in run if r["value"]}


def device_of(text: str) -> str:
    name = text.lower()
    for pattern, device in _DEVICES:
        if re.search(pattern, name):
            return device
    return ""


_DEVICES = (
    ("gh200", "gh200"),
    ("gb200", "gb200"),
    ("b200", "b200_sxm"),
    ("h200", "h200_sxm"),
    ("h100.*(nvl|pcie)|pcap", ""),
    ("h100", "h100_sxm"),
    ("a100-40|a100 pcie", ""),
    ("a100", "a100_sxm"),
    ("l40s", "l40s"),
    ("mi355", "mi355x"),
    ("mi325", "mi325x"),
    ("mi300x", "mi300x"),
    ("mi250", "mi250"),
    ("gaudi ?2", "gaudi2"),
    ("gaudi ?3", "gaudi3"),
    ("xeon.*6767", "xeon_6767p"),
)
