"""Smooth corrections: kernel ridge regression on a few scaled coordinates, evaluated with NumPy alone.

Where trees cut, neighbouring configurations blend: first-token times vary smoothly with load, lengths, split and date,
and far from every anchor the correction fades to zero by itself.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FADE = 2  # exponent of the kernel: the higher, the less do distant anchors say
_DISTANCES = 100_000  # at once: they stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Smoother:
    """log factor = offset + Σ coefficient / (1 + sharpness / FADE · distance² to the anchor) ^ FADE.

    Shapes: anchors (m, d), coefficients (m,) or (m, k) for k corrections at once.
    """

    anchors: NDArray[np.float32]
    coefficients: NDArray[np.float32]
    sharpness: float
    offset: float

    def predict(self, coordinates: NDArray[np.float32]) -> NDArray[np.float64]:
        """`coordinates` is rows × d; the answer has one number, or k, per row."""
        return self.predict_near(coordinates)[0]

    def predict_near(self, coordinates: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """The correction of each row and its distance to the nearest anchor. A search varies few coordinates: what all
        rows share is one number per anchor."""
        count = len(coordinates)
        found = np.empty((count, *self.coefficients.shape[1:]), np.float64)
        nearest = np.full(count, np.inf, np.float32)
        if not count or not len(self.anchors):
            found[:] = 0.0
            return found + self.offset, nearest
        scale, first = np.float32(self.sharpness / FADE), coordinates[0]
        varies = (coordinates != first).any(axis=0)
        anchors, same = self.anchors[:, varies], (self.anchors - first)[:, ~varies]
        ends = 1 + scale * (np.einsum("md,md->m", same, same) + np.einsum("md,md->m", anchors, anchors))
        turned = np.vstack([anchors.T * (-2 * scale), np.full_like(ends, scale)[None], ends[None]])
        rows = coordinates[:, varies]
        rows = np.column_stack([rows, np.einsum("nd,nd->n", rows, rows), np.ones(count, np.float32)])
        step = max(1, _DISTANCES // len(ends))
        room = np.empty((min(step, count), len(ends)), np.float32)
        for start in range(0, count, step):
            near = room[: min(step, count - start)]
            np.matmul(rows[start : start + step], turned, out=near)  # 1 + scale · distance²
            nearest[start : start + step] = near.min(axis=1)
            np.reciprocal(near, out=near)
            np.square(near, out=near)
            found[start : start + step] = near @ self.coefficients
        return found + self.offset, np.sqrt(np.maximum(nearest - 1, 0) / scale)
