"""Smooth corrections: kernel ridge regression on a few scaled coordinates, evaluated with NumPy alone.

Where trees cut, neighbouring configurations blend: first-token times vary smoothly with load, lengths, split and date,
and far from every anchor the correction fades to zero by itself.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROWS = 512  # at once: the distances stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Smoother:
    """log factor = offset + Σ coefficient / (1 + sharpness · distance² to the anchor).

    Shapes: anchors (m, d), coefficients (m,) or (m, k) for k corrections at once.
    """

    anchors: NDArray[np.float32]
    coefficients: NDArray[np.float32]
    sharpness: float
    offset: float

    def predict(self, coordinates: NDArray[np.float32]) -> NDArray[np.float64]:
        """`coordinates` is rows × d."""
        scale = np.float32(self.sharpness)
        ends = np.float32(1.0) + scale * np.einsum("md,md->m", self.anchors, self.anchors)
        turned = np.vstack([self.anchors.T * (np.float32(-2.0) * scale), np.full_like(ends, scale)[None], ends[None]])
        found = np.empty((len(coordinates), *self.coefficients.shape[1:]), np.float64)
        for start in range(0, len(coordinates), _ROWS):
            rows = coordinates[start : start + _ROWS]
            squares = np.einsum("nd,nd->n", rows, rows)[:, None]
            near = np.hstack([rows, squares, np.ones_like(squares)]) @ turned  # 1 + sharpness · distance²
            np.reciprocal(np.maximum(near, np.float32(1.0), out=near), out=near)
            found[start : start + _ROWS] = near @ self.coefficients
        return found + self.offset
