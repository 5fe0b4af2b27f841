"""Scanners of guardrails that are called over HTTP. What cannot be understood counts as no answer."""

import asyncio
from collections.abc import Callable, Sequence

import httpx
import msgspec

from gateway.core.guard.guard import ScannerAway, Verdict
from gateway.core.wire import Direction, Guardrail

MAX_ANSWER_BYTES = 32 << 20


class _Answer(msgspec.Struct):
    """docs/gateway.md, scanners."""

    flagged: bool
    texts: list[str] | None = None


class Scanners:
    """``scan`` asks the scanner of a guardrail. ``secret`` gives the plaintext of a credential."""

    def __init__(self, secret: Callable[[str], str], transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._secret = secret
        self._client = httpx.AsyncClient(transport=transport, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def scan(self, guardrail: Guardrail, direction: Direction, texts: Sequence[str]) -> Verdict:
        """Raises ScannerAway."""
        body = msgspec.json.encode({"guardrail": guardrail.id, "direction": direction, "texts": texts})
        answer = await self._post(guardrail, body)
        try:
            found = msgspec.json.decode(answer, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ScannerAway(f"its answer is not understood: {error}") from None
        return Verdict(found.flagged, found.texts)

    async def _post(self, guardrail: Guardrail, body: bytes) -> bytes:
        headers = {"content-type": "application/json"}
        if guardrail.credential_ref is not None:
            headers["authorization"] = f"Bearer {self._secret(guardrail.credential_ref)}"
        try:
            async with (
                asyncio.timeout(guardrail.timeout_ms / 1000),
                self._client.stream("POST", guardrail.url, content=body, headers=headers, timeout=None) as response,
            ):
                return await _read(response)
        except (httpx.HTTPError, TimeoutError) as error:
            raise ScannerAway(f"{type(error).__name__}: {error}") from None


async def _read(response: httpx.Response) -> bytes:
    if response.status_code != 200:
        raise ScannerAway(f"it answered {response.status_code}")
    data = b""
    async for part in response.aiter_bytes():
        data += part
        if len(data) > MAX_ANSWER_BYTES:
            raise ScannerAway("its answer is too long")
    return data
