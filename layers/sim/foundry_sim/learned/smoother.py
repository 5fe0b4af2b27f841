"""A smooth correction: kernel ridge regression on a few scaled coordinates, evaluated with NumPy alone.

Where trees cut, neighbouring configurations blend: first-token times vary smoothly with load, lengths, split and date,
and far from every anchor the correction fades to zero by itself.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROWS = 512  # at once: the distances stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Smoother:
    """log factor = offset + Σ coefficient / (1 + sharpness · distance² to the anchor). Shapes: anchors (m, d)."""

    anchors: NDArray[np.float32]
    coefficients: NDArray[np.float32]
    sharpness: float
    offset: float

    def predict(self, coordinates: NDArray[np.float32]) -> NDArray[np.float64]:
        """`coordinates` is rows × d."""
        scale = np.float32(self.sharpness)
        turned = np.ascontiguousarray(self.anchors.T) * (np.float32(-2.0) * scale)
        ends = np.float32(1.0) + scale * np.einsum("md,md->m", self.anchors, self.anchors)
        found = np.empty(len(coordinates), np.float64)
        for start in range(0, len(coordinates), _ROWS):
            rows = coordinates[start : start + _ROWS]
            near = rows @ turned
            near += scale * np.einsum("nd,nd->n", rows, rows)[:, None]
            near += ends
            np.maximum(near, np.float32(1.0), out=near)
            np.reciprocal(near, out=near)
            found[start : start + _ROWS] = near @ self.coefficients
        return found + self.offset
