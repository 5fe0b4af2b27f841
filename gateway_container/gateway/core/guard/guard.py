"""All guardrails of an endpoint, compiled when its config is loaded."""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from gateway.core.guard.rules import LOCAL_KINDS, Checks, compile_rules
from gateway.core.wire import Direction, Guardrail


class Verdict(NamedTuple):
    """What a scanner says of some texts. ``texts``: the same ones without what it found, where it can do that."""

    flagged: bool
    texts: list[str] | None = None


class ScannerAway(Exception):
    """A scanner did not answer in time, or not as it should."""


# Asks a scanner about texts. Raises ScannerAway.
Scan = Callable[[Guardrail, Direction, Sequence[str]], Awaitable[Verdict]]


class Side(NamedTuple):
    """One direction: rules with patterns that act or observe, and scanners that are called."""

    acting: Checks
    watching: Checks
    scanners: tuple[Guardrail, ...]

    @property
    def idle(self) -> bool:
        return not (self.acting or self.watching or self.scanners)

    @property
    def strict(self) -> bool:
        """Something may be blocked or redacted, so nothing may pass unread."""
        return bool(self.acting) or any(scanner.action != "observe" for scanner in self.scanners)


class Guard:
    """Raises ValueError, by the guardrail's id, for what cannot be used."""

    def __init__(self, guardrails: Sequence[Guardrail]) -> None:
        for one in guardrails:
            _check(one)
        encoded = msgspec.json.encode(guardrails)
        self.input = _side(encoded, "input")
        self.output = _side(encoded, "output")


@lru_cache(maxsize=256)
def _side(encoded: bytes, direction: Direction) -> Side:
    """Remembered, since most changes of the config leave an endpoint's guardrails as they are."""
    guardrails = msgspec.json.decode(encoded, type=list[Guardrail])
    acting, watching = compile_rules(guardrails, direction)
    return Side(acting, watching, tuple(g for g in guardrails if g.kind not in LOCAL_KINDS and direction in g.on))


def _check(guardrail: Guardrail) -> None:
    called = guardrail.kind not in LOCAL_KINDS
    if called and urlsplit(guardrail.url).scheme not in ("http", "https"):
        raise ValueError(f"guardrail {guardrail.id}: {guardrail.url!r} is not an http(s) URL")
    if called and not (1 <= guardrail.timeout_ms <= 60_000 and guardrail.window_chars >= 1):
        raise ValueError(f"guardrail {guardrail.id}: timeout_ms must be 1 to 60000, window_chars at least 1")
