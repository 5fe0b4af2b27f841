"""One line of a batch through the pipeline of live requests, as the key that made the batch."""

import asyncio
from typing import Any, Final

import httpx
import msgspec

from gateway.core.authorise import find_key
from gateway.core.problems import Rejected, is_error
from gateway.core.snapshot import Key
from gateway.core.wire import BatchClaim
from gateway.inference import Inference
from gateway.runtime import Gateway

MAX_ANSWER_BYTES: Final = 8 << 20
LATER: Final = frozenset({429, 503})
FINAL: Final = frozenset({"insufficient_quota", "endpoint_closed"})
KEY_GONE: Final = frozenset({"invalid_api_key", "key_expired"})
TRIES: Final = 8  # of what may never end; a rate limit that says when it ends does
MAX_WAIT_S: Final = 60.0
DOUBLINGS: Final = 9  # more than anybody waits; a power of a whole day's tries has no float


def backoff_s(tried: int, most_s: float) -> float:
    return min(2.0 ** min(tried, DOUBLINGS), most_s)


class TooLarge(Exception):
    """Nobody keeps such an answer."""


class Answer:
    """What came of a line."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.refused = ""  # why, when it was the gateway itself: deployments have keys and limits of their own
        self.status = 0
        self.retry_after_s = 0.0
        self.body = b""

    @property
    def failed(self) -> bool:
        return is_error(self.status)

    @property
    def code(self) -> str:
        try:
            return str(msgspec.json.decode(self.body)["error"]["code"])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, KeyError):
            return ""

    def wait_s(self, tried: int) -> float | None:
        """How long to wait before it is asked again. None: this is the answer."""
        if self.status not in LATER or (code := self.code) in FINAL:
            return None
        ends = code == "rate_limit_exceeded" and self.retry_after_s > 0
        beyond = self.refused == "rate_limit_exceeded" and not ends  # of the whole limit: no waiting helps
        if beyond or (tried >= TRIES and not ends):
            return None
        return max(self.retry_after_s, backoff_s(tried, MAX_WAIT_S))

    def refuse(self, problem: Rejected, path: str) -> None:
        self.status, self.body = problem.status, problem.body(path)


class LineInference(Inference):
    """An inference request that no client sends."""

    def __init__(
        self, gateway: Gateway, client: httpx.AsyncClient, claim: BatchClaim, key: Key, body: bytes, answer: Answer
    ) -> None:
        headers = [(b"content-type", b"application/json"), (b"x-request-id", answer.request_id.encode())]
        scope = {"path": claim.batch.endpoint, "headers": headers, "client": (claim.address, 0)}
        super().__init__(gateway, client, scope, self._ask, self._take)
        self._claim = claim
        self._key = key
        self._body: bytes | None = body
        self._answer = answer

    def _identify(self) -> None:
        snapshot, address = self.policy.snapshot, self._claim.address
        assert snapshot is not None
        self.exchange.origin = address, ""
        self.policy.blocking.refuse_known(snapshot, address, "")
        self.exchange.key = find_key(snapshot, self._key.digest, self.exchange.ts_ms, address)

    async def _ask(self) -> dict[str, Any]:
        body, self._body = self._body, None
        if body is None:
            await asyncio.Event().wait()  # this client never leaves
        return {"type": "http.request", "body": body, "more_body": False}

    async def _take(self, message: Any) -> None:
        answer = self._answer
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            sent = dict(message["headers"]).get(b"retry-after", b"0")
            answer.retry_after_s = float(sent) if sent.isdigit() else 0.0
            return
        answer.body += message.get("body", b"")
        if len(answer.body) > MAX_ANSWER_BYTES:
            raise TooLarge


async def ask(
    gateway: Gateway, client: httpx.AsyncClient, claim: BatchClaim, key: Key, number: int, body: bytes
) -> Answer:
    """Send the line's request once. Always one metering row."""
    answer = Answer(f"{claim.batch.id}.{number}")
    inference = LineInference(gateway, client, claim, key, body, answer)
    try:
        async with asyncio.timeout(gateway.settings.total_timeout_s):
            await inference.run()
        answer.refused = inference.error_code
        answer.body = msgspec.json.format(answer.body.decode(), indent=-1).encode()  # a line has no line breaks
    except TimeoutError:
        answer.refuse(Rejected("upstream_timeout"), claim.batch.endpoint)
    except (TooLarge, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        answer.refuse(Rejected("upstream_invalid"), claim.batch.endpoint)
    return answer
