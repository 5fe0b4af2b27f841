"""Time as integer milliseconds since the Unix epoch (UTC), injectable for tests."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_source: ContextVar[Callable[[], int] | None] = ContextVar("clock", default=None)


def now_ms() -> int:
    source = _source.get()
    return source() if source else time.time_ns() // 1_000_000


def iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextmanager
def fixed(at_ms: int) -> Iterator[None]:
    """Stop the clock at ``at_ms`` inside the block."""
    token = _source.set(lambda: at_ms)
    try:
        yield
    finally:
        _source.reset(token)
