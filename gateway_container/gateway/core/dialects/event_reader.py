"""What the readers of the providers that answer with server-sent events share."""

from gateway.core import sse
from gateway.core.dialects.conversation import Event
from gateway.core.stage import Garbled


class EventStreamReader:
    """``feed`` and ``end`` of a stream; subclasses say what the data of an event means and when the answer is there.
    Raises Garbled."""

    def __init__(self) -> None:
        self._events = sse.EventReader()

    def feed(self, data: bytes) -> list[Event]:
        return self._each(self._events.feed(data))

    def end(self) -> list[Event]:
        found = self._each([self._events.rest()])
        if not self._ended():
            raise Garbled("the stream ended too early")
        return found

    def _each(self, events: list[bytes]) -> list[Event]:
        return [found for text in sse.payloads(events) for found in self._event(text)]

    def _event(self, text: bytes) -> list[Event]:
        raise NotImplementedError

    def _ended(self) -> bool:
        raise NotImplementedError
