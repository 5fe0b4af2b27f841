"""One measured run, in the simulator's words; the committed training table is a CSV of these."""

import csv
import gzip
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Measurement:
    """Lengths are means; latencies in ms; throughput is output tokens/s of the whole deployment."""

    source: str
    model: str
    device: str
    engine: str
    engine_version: str = ""
    date: str = ""
    weights: str = ""
    moe: str = ""
    kv: str = ""
    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1
    isl: float = 0.0
    osl: float = 0.0
    kind: str = "closed"  # closed | open | offline | static
    load: float = 0.0  # concurrency, requests/s, or batch
    spec: str = ""  # "" none; "mtp"; "unknown"; "mtp?" unknown, but the evidence says MTP
    max_num_seqs: int = 0
    ttft_ms_mean: float | None = None
    ttft_ms_p50: float | None = None
    ttft_ms_p99: float | None = None
    tpot_ms_mean: float | None = None
    tpot_ms_p50: float | None = None
    tpot_ms_p99: float | None = None
    output_tokens_per_s: float | None = None
    e2e_ms_mean: float | None = None

    @property
    def curve(self) -> tuple[str, str, str, int, int]:
        """The group that must not be split between training and validation."""
        return (self.model, self.device, self.engine, self.tp * self.dp, self.pp)


_INTEGERS = {"tp", "pp", "ep", "dp", "max_num_seqs"}
_TEXT = {"source", "model", "device", "engine", "engine_version", "date", "weights", "moe", "kv", "kind", "spec"}


def write(path: Path, rows: Iterable[Measurement]) -> None:
    """Sorted, rounded to six digits and without a time stamp, so that the same rows give the same bytes."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([f.name for f in fields(Measurement)])
    table.writerows(sorted([[_cell(v) for v in asdict(row).values()] for row in rows]))
    path.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))


def read(path: Path) -> list[Measurement]:
    with gzip.open(path, "rt", newline="") as stream:
        return [Measurement(**{k: _value(k, v) for k, v in row.items()}) for row in csv.DictReader(stream)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _value(name: str, text: str) -> Any:
    if name in _TEXT:
        return text
    if name in _INTEGERS:
        return int(text)
    return float(text) if text else None
