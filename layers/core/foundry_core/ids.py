"""Identifiers: a kind prefix and 26 characters that sort by creation time (ULID layout)."""

import secrets

from foundry_core.clock import now_ms

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base32: no i, l, o, u


def _base32(value: int, length: int) -> str:
    return "".join(_ALPHABET[(value >> 5 * place) & 31] for place in reversed(range(length)))


def new_id(prefix: str) -> str:
    return f"{prefix}_{_base32(now_ms(), 10)}{_base32(secrets.randbits(80), 16)}"


def new_secret(prefix: str) -> str:
    """A bearer secret with 256 bits of entropy; shown once, stored as SHA-256 only."""
    return f"{prefix}-{secrets.token_urlsafe(32)}"
