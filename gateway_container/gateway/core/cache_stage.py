"""The stage that answers from the cache, and keeps what may be kept."""

from collections.abc import Callable

from gateway.core.cache import WHOLE, Request, ResponseCache, Stored, is_complete, request_of
from gateway.core.exchange import Exchange
from gateway.core.stage import AnswerHead, Header, Stage

NAME = b"x-foundry-cache"
JSON = b"application/json"
OPT_OUT = (b"no-store", b"no-cache")


class CacheStage(Stage):
    """Outermost: what it keeps has passed all other stages, and is replayed past them."""

    def __init__(
        self, exchange: Exchange, cache: ResponseCache, scope: bytes, ttl_s: float, clock: Callable[[], float]
    ) -> None:
        super().__init__(exchange)
        self._cache = cache
        self._scope = scope
        self._ttl_s = ttl_s
        self._clock = clock
        self._request: Request | None = None
        self._headers: list[Header] = []
        self._parts: list[bytes] = []
        self._size = 0
        self._whole = False

    async def request(self) -> bool:
        exchange = self.exchange
        control = exchange.headers.get(b"cache-control", b"").lower()
        if exchange.form is not None or any(word in control for word in OPT_OUT):
            return False
        self._request = request_of(self._scope, exchange.path, exchange.headers, exchange.body)
        if self._request is None:
            return False
        found = self._cache.find(self._request, exchange.path, self._clock())
        if found is None:
            return False
        self._request = None
        self._replay(found)
        return True

    def _replay(self, found: Stored) -> None:
        self.pipeline.outcome = "cached"
        self.pipeline.answered = found.usage
        self.down.head(AnswerHead(200, [*found.headers, (NAME, b"hit")]))
        if found.body:
            self.down.data(found.body)
        self.down.end()

    # --- what may be kept ---------------------------------------------------------------------------------------

    def head(self, head: AnswerHead) -> None:
        request = self._request
        if request is not None:
            fits = head.content_type.startswith(JSON) if request.form == WHOLE else head.event_stream
            own = self.exchange.answered_by is self.exchange.endpoint  # a fallback's answer is for now only
            if head.status != 200 or not fits or not own:
                self._request = None
            self._headers = list(head.headers)
            head.headers.append((NAME, b"miss"))
        self.down.head(head)

    def data(self, data: bytes) -> None:
        if self._request is not None:
            self._parts.append(data)
            self._size += len(data)
            if self._size > self._cache.max_entry_bytes:
                self._request = None
                self._parts.clear()
        self.down.data(data)

    def end(self) -> None:
        self._whole = True
        self.down.end()

    def over(self, outcome: str) -> None:
        request, exchange = self._request, self.exchange
        if request is None or not self._whole or outcome != "ok":
            return
        body = b"".join(self._parts)
        if is_complete(exchange.path, request.form, body):
            usage, _ = self.pipeline.usage()
            self._cache.put(request, Stored(self._headers, body, usage, self._clock() + self._ttl_s))
