"""An answer's event stream through the rules: texts are rewritten in place, everything else of an event stays."""

from typing import Any

import msgspec

from gateway.core import sse
from gateway.core.guard.rules import Checks, Finding
from gateway.core.guard.texts import REPEATED, STREAM, Lane, Text, hide_tokens, indexes, texts
from gateway.core.guard.window import Window

Document = dict[str, Any]
EVERY: Lane = ()
QUIET_SUFFIXES = ("delta", ".added", ".created", ".in_progress", "content_block_start", "message_start", "ping")


class Unreadable(Exception):
    """An event that is no JSON object, or has lines besides, cannot be checked, so it must not pass."""


class _Running:
    """A text of the stream that has not ended."""

    __slots__ = ("event", "watching", "window")

    def __init__(self, acting: Checks, watching: Checks) -> None:
        self.window = Window(acting)
        self.watching = Window(watching)
        self.event = b""  # the last one with a piece of it


class StreamGuard:
    """``event`` and ``end`` give the events to pass on; ``found`` collects what the rules found in them.

    What has to wait of a text is carried by its next event; where a text ends, by a copy of its last event.
    """

    def __init__(self, path: str, acting: Checks, watching: Checks) -> None:
        self.found: list[Finding] = []
        self.last: Document = {}
        self.open: dict[Lane, _Running] = {}
        self._path = path
        self._acting = acting
        self._watching = watching

    def event(self, event: bytes) -> list[bytes]:
        """Raises Unreadable."""
        if not sse.sound(event):
            raise Unreadable
        payload = sse.payload(event)
        if payload is None:
            return [event]
        if payload == sse.DONE:
            return [*self._flush(EVERY), event]
        document = self.last = _decode(payload)
        pieces = [text for text in texts(document, STREAM.get(self._path, {})) if text.value]
        ended = self._ended(document, bool(pieces))
        flushed: list[bytes] = []
        spelt_out = self._acting and (b'"logprobs"' in payload or b'"token_ids"' in payload)
        changed = bool(spelt_out) and hide_tokens(document)
        for piece in pieces:
            flushed += self._flush_siblings(piece.lane)
            changed = self._piece(piece, event, ended) or changed
        for group in ended:
            flushed += self._flush(group)
        changed = self._repeated(document) or changed
        return [*flushed, sse.with_payload(event, msgspec.json.encode(document)) if changed else event]

    def end(self) -> list[bytes]:
        return self._flush(EVERY)

    # --- texts --------------------------------------------------------------------------------------------------

    def _piece(self, piece: Text, event: bytes, ended: list[Lane]) -> bool:
        """Put what may go on in its place. Where the text ends with this event, that is everything."""
        running = self.open.get(piece.lane)
        if running is None:
            running = self.open[piece.lane] = _Running(self._acting, self._watching)
        running.event = event
        running.watching.feed(piece.value)
        given = running.window.feed(piece.value)
        if any(_within(piece.lane, group) for group in ended):
            given += self._rest(piece.lane)
        self._collect(running)
        return piece.put(given)

    def _rest(self, lane: Lane) -> str:
        running = self.open.pop(lane)
        running.watching.flush()
        rest = running.window.flush()
        self._collect(running)
        return rest

    def _collect(self, running: _Running) -> None:
        for window in (running.window, running.watching):
            if window.found:
                self.found += window.found
                window.found = []

    def _repeated(self, document: Document) -> bool:
        """Whole texts that were streamed before; they were counted then."""
        changed = False
        for text in texts(document, REPEATED[self._path]) if self._path in REPEATED else ():
            changed = text.put(self._acting.redact(text.value)[0]) or changed
        return changed

    # --- ends ---------------------------------------------------------------------------------------------------

    def _ended(self, document: Document, has_text: bool) -> list[Lane]:
        """Which texts end with this event: prefixes of their lanes."""
        choices = document.get("choices")
        if isinstance(choices, list) and choices:
            return [_choice(choice, n) for n, choice in enumerate(choices) if _finished(choice)]
        kind = str(document.get("type", ""))
        if has_text or kind.endswith(QUIET_SUFFIXES):
            return []
        if kind == "content_block_stop" or kind.endswith(".done"):
            return [indexes(document)]
        return [EVERY]

    def _flush_siblings(self, lane: Lane) -> list[bytes]:
        """Texts of one choice or item follow each other: the one before has ended when the next one begins."""
        group = lane[:2] if lane[0] == "choices" else tuple(part for part in lane if isinstance(part, int))
        siblings = [other for other in self.open if other != lane and _within(other, group)]
        return [event for sibling in siblings for event in self._flush(sibling)]

    def _flush(self, group: Lane) -> list[bytes]:
        flushed = []
        for lane in [lane for lane in self.open if _within(lane, group)]:
            event = self.open[lane].event
            rest = self._rest(lane)
            if rest:
                flushed.append(self._copy(event, lane, rest))
        return flushed

    def _copy(self, event: bytes, lane: Lane, rest: str) -> bytes:
        document = _decode(sse.payload(event) or b"")
        hide_tokens(document)
        for text in texts(document, STREAM[self._path]):
            text.put(rest if text.lane == lane else "")
        return sse.with_payload(event, msgspec.json.encode(document))


def _decode(payload: bytes) -> Document:
    try:
        document = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Unreadable from None
    if not isinstance(document, dict):
        raise Unreadable
    return document


def _within(lane: Lane, group: Lane) -> bool:
    return lane[: len(group)] == group


def _choice(choice: Any, position: int) -> Lane:
    index = choice.get("index", position)
    return ("choices", index)


def _finished(choice: Any) -> bool:
    return isinstance(choice, dict) and choice.get("finish_reason") is not None
