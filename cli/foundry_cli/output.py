"""What the terminal shows: tables of at most 100 columns, JSON for scripts, money and times as people read them."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 100
# What is shown comes from pods, models and people: brackets in it are text, not markup.
_PLAIN: Any = {"highlight": False, "markup": False, "emoji": False}
console = Console(width=min(Console().width, WIDTH) if sys.stdout.isatty() else WIDTH, **_PLAIN)
errors = Console(stderr=True, width=WIDTH, **_PLAIN)


def show_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=False) + "\n")


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A plain table; ``empty`` is the sentence shown when there are no rows."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007
        table.add_row(*(str(cell) for cell in row))
    if count:
        console.print(table)
    else:
        console.print(empty)


def show_list(items: list[dict[str, Any]], columns: dict[str, str], as_json: bool, empty: str) -> None:
    """Rows of API resources: ``columns`` maps headings to fields (``a.b`` reaches inside)."""
    if as_json:
        show_json(items)
        return
    show_table(list(columns), ([cell(item, path) for path in columns.values()] for item in items), empty)


def cell(item: dict[str, Any], path: str) -> str:
    value: Any = item
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return "–" if value is None else str(value)


def listed(values: dict[str, Any]) -> str:
    """``ttft_ms 500, statistic p95``: what is given of named values."""
    given = {name: f"{value:,g}" if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join(f"{name} {value}" for name, value in given.items() if value is not None) or "none"


def moment(at_ms: int | None) -> str:
    """``2026-01-31 12:00 UTC``; ``never`` for no time."""
    return "never" if at_ms is None else f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def count(value: float | None) -> str:
    """``8.03 B``: three significant digits and the short-scale letter that model sizes are given in."""
    if value is None:
        return "–"
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"


def sentence(error: Exception) -> str:
    """What the simulator says of a mistake, as a sentence of its own."""
    text = str(error)
    return f"{text[0].upper()}{text[1:]}."
