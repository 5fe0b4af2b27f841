"""Step times from a small grid of the closed form, so that any correction of the step model carries over."""

import numpy as np

from foundry_sim.physics.step import StepModel
from foundry_sim.physics.terms import Array

_CONTEXTS = (16, 256, 1024, 4096, 16_384, 65_536, 262_144)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_CHUNKS = (0, 64, 256, 1024, 4096, 16_384)


class StepTable:
    """Seconds of a step, interpolated in log-spaced batch, context and prompt tokens; `scale` corrects all of them."""

    def __init__(self, model: StepModel, scale: float = 1.0) -> None:
        batch, context = np.array(_BATCHES, float), np.array(_CONTEXTS, float)
        self._log_batch, self._log_context = np.log(batch), np.log(context)
        self._log_chunk = np.log1p(np.array(_CHUNKS, float))
        self._decode = model.decode_ms(batch[:, None], context[None, :]) * scale / 1e3
        chunks = np.array(_CHUNKS, float)[:, None]
        mixed = model.step_ms(chunks, batch[None, :], 1024.0)
        self._prefill = (mixed - mixed[0]) * scale / 1e3
        self._alone = model.prefill_ms(np.maximum(chunks[:, 0], 1.0)) * scale / 1e3

    def decode_s(self, batch: int, context: float) -> float:
        return _bilinear(self._decode, self._log_batch, np.log(batch), self._log_context, np.log(max(context, 1.0)))

    def mixed_s(self, prompt_tokens: int, batch: int, context: float) -> float:
        at = np.log1p(prompt_tokens)
        if batch == 0:
            return float(np.interp(at, self._log_chunk, self._alone))
        extra = _bilinear(self._prefill, self._log_chunk, at, self._log_batch, np.log(batch))
        return self.decode_s(batch, context) + extra


def _bilinear(grid: Array, rows: Array, row: float, columns: Array, column: float) -> float:
    i, u = _place(rows, row)
    j, v = _place(columns, column)
    low = grid[i, j] * (1 - v) + grid[i, j + 1] * v
    high = grid[i + 1, j] * (1 - v) + grid[i + 1, j + 1] * v
    return float(low * (1 - u) + high * u)


def _place(axis: Array, value: float) -> tuple[int, float]:
    i = min(max(int(np.searchsorted(axis, value)) - 1, 0), len(axis) - 2)
    return i, float(min(max((value - axis[i]) / (axis[i + 1] - axis[i]), 0.0), 1.0))
