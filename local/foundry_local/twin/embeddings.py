"""Embeddings that mean nothing but are always the same for the same text."""

import base64
import math
import random
import struct

from foundry_local.twin.tokens import seed_of


def embedding(text: str, size: int, *, as_text: bool) -> list[float] | str:
    """A deterministic unit vector: the same text gives the same vector, nothing else is meant by it."""
    draws = random.Random(seed_of(text, 0))  # noqa: S311 (filler, no secret)
    values = [draws.gauss(0, 1) for _ in range(size)]
    norm = math.sqrt(sum(value * value for value in values)) or 1.0
    values = [value / norm for value in values]
    if as_text:
        return base64.b64encode(struct.pack(f"<{size}f", *values)).decode()
    return values
