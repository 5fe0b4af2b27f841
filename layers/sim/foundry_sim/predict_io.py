"""JSON lines in, JSON lines out: every input line yields exactly one output line, whatever it holds."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from foundry_sim.calibration import Calibration
from foundry_sim.errors import SimulatorError
from foundry_sim.predict import Method, Prediction, PredictionRequest, predict
from foundry_sim.requests import Id, identifier, parse
from foundry_sim.whole_file import whole_file

LINE_BYTES_MAX = 1 << 20
_BATCH = 2048


def predict_file(
    source: Path, target: Path, method: Method = "regressor", calibration: Calibration | None = None
) -> tuple[int, int]:
    """Predict every line of `source` into `target`, which appears only when complete. Returns (rows, errors)."""
    rows = errors = 0
    with source.open("rb") as stream, whole_file(target) as out:
        for prediction in predict_lines(stream, method, calibration):
            out.write(json.dumps(prediction.as_dict(), allow_nan=False) + "\n")
            rows, errors = rows + 1, errors + (prediction.error is not None)
    return rows, errors


def predict_lines(
    lines: Iterable[bytes], method: Method = "regressor", calibration: Calibration | None = None
) -> Iterator[Prediction]:
    """Predictions in the order of the lines; blank lines are skipped."""
    filled = iter(line for line in lines if line.strip())
    while batch := list(islice(filled, _BATCH)):
        yield from _batch(batch, method, calibration or Calibration())


def predict_rows(rows: list[dict[str, Any]], method: Method, calibration: Calibration) -> list[Prediction]:
    """Predictions of parsed lines, in order."""
    return list(predict_lines((json.dumps(row).encode() for row in rows), method, calibration))


def _batch(lines: list[bytes], method: Method, calibration: Calibration) -> Iterator[Prediction]:
    parsed = [_parsed(line) for line in lines]
    requests = [p for p in parsed if isinstance(p, PredictionRequest)]
    answers = iter(calibration.apply_all(requests, predict(requests, method)))
    for item in parsed:
        yield next(answers) if isinstance(item, PredictionRequest) else _refused(item, method)


def _refused(item: tuple[Id, str], method: Method) -> Prediction:
    return Prediction(item[0], method=method, error=item[1])


def _parsed(line: bytes) -> PredictionRequest | tuple[Id, str]:
    """The request, or (id, error)."""
    if len(line) > LINE_BYTES_MAX:
        return "", f"the line is longer than {LINE_BYTES_MAX:,} bytes"
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return "", "the line is not valid JSON; each line holds one whole request"
    name: Id = ""
    try:
        name = identifier(value) if isinstance(value, dict) else ""
        return parse(value)
    except SimulatorError as error:
        return name, str(error)
