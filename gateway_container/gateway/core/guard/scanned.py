"""A stream that is shown to scanners: events wait until the window that they are in has been looked at."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from gateway.core import sse
from gateway.core.guard.texts import STREAM, Lane, Text, texts
from gateway.core.problems import Rejected
from gateway.core.stage import Pipeline, Sink
from gateway.core.wire import Guardrail

Ask = Callable[[Guardrail, Sequence[str]], Awaitable[Sequence[str]]]
OVERLAP = 4  # a quarter of a window is looked at once more together with the next one


class ScannedStream:
    """``feed`` events, then ``end``. What was looked at goes down; if it must not, ``stop`` is told why."""

    def __init__(
        self, path: str, scanners: Sequence[Guardrail], ask: Ask, stop: Callable[[Rejected], None],
        pipeline: Pipeline, down: Sink,
    ) -> None:  # fmt: skip
        self._path = path
        self._scanners = scanners
        self._window_chars = min(scanner.window_chars for scanner in scanners)
        self._ask = ask
        self._stop = stop
        self._pipeline = pipeline
        self._down = down
        self._events: list[bytes] = []
        self._fresh_chars = 0
        self._busy = False
        self._ended = False

    def feed(self, events: Sequence[bytes]) -> None:
        self._events += events
        self._fresh_chars += sum(len(text.value) for event in events for text in _read(event, self._path)[1])
        self._look()

    def end(self) -> None:
        self._ended = True
        self._look()

    def _look(self) -> None:
        if not self._busy and (self._due or self._ended):
            self._busy = True
            self._pipeline.hold()
            self._pipeline.spawn(self._scan())

    @property
    def _due(self) -> bool:
        return bool(self._events) if self._ended else self._fresh_chars >= self._window_chars

    async def _scan(self) -> None:
        """Look at windows until less than one is left."""
        try:
            while self._due:
                await self._scan_window()
        except Rejected as problem:
            self._stop(problem)
        else:
            if self._ended:
                self._down.end()
        self._busy = False
        self._pipeline.free()

    async def _scan_window(self) -> None:
        window, last = self._events, self._ended
        self._events, self._fresh_chars = [], 0
        documents = [_read(event, self._path) for event in window]
        changed = await self._check([text for _, found in documents for text in found])
        passed = window
        if changed:
            passed = [
                sse.with_payload(event, msgspec.json.encode(document)) if found else event
                for event, (document, found) in zip(window, documents, strict=True)
            ]
        split = len(window) if changed or last else self._overlap(documents)
        self._events = passed[split:] + self._events
        if split:
            self._down.data(b"".join(passed[:split]))

    async def _check(self, found: Sequence[Text]) -> bool:
        """Show a window's texts to every scanner, put what they let pass in place. True when that is something else."""
        lanes: dict[Lane, list[Text]] = {}
        for text in found:
            lanes.setdefault(text.lane, []).append(text)
        before = ["".join(piece.value for piece in pieces) for pieces in lanes.values()]
        after: Sequence[str] = before
        for scanner in self._scanners if any(before) else ():
            after = await self._ask(scanner, after)
        for pieces, old, new in zip(lanes.values(), before, after, strict=True):
            if new != old:
                for piece in pieces:
                    piece.put("")
                pieces[0].put(new)
        return list(after) != before

    def _overlap(self, documents: Sequence[tuple[Any, list[Text]]]) -> int:
        """From which event on a window is looked at again."""
        left = self._window_chars // OVERLAP
        for position in range(len(documents) - 1, -1, -1):
            left -= sum(len(text.value) for text in documents[position][1])
            if left < 0:
                return position + 1
        return 0


def _read(event: bytes, path: str) -> tuple[Any, list[Text]]:
    data = sse.payload(event)
    if data is None or data == sse.DONE:
        return None, []
    document = msgspec.json.decode(data)
    return document, texts(document, STREAM.get(path, {}))
