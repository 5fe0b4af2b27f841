"""Scanners of guardrails that are called over HTTP. What cannot be understood counts as no answer."""

import asyncio
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import httpx
import msgspec

from gateway.core.dialects.sigv4 import sign
from gateway.core.guard.guard import ScannerAway, Verdict
from gateway.core.stage import Header
from gateway.core.wire import Direction, Guardrail
from gateway.credentials import CONTENT_TYPE, aws_credential

MAX_ANSWER_BYTES = 32 << 20


class _Answer(msgspec.Struct):
    """docs/gateway.md, scanners."""

    flagged: bool
    texts: list[str] | None = None


class _Output(msgspec.Struct):
    text: str = ""


class _Applied(msgspec.Struct):
    """The answer of ApplyGuardrail (Amazon Bedrock API reference), as far as it is used here."""

    action: str
    outputs: list[_Output] = []


class Scanners:
    """``scan`` asks the scanner of a guardrail. ``secret`` gives the plaintext of a credential."""

    def __init__(self, secret: Callable[[str], str], transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._secret = secret
        self._client = httpx.AsyncClient(transport=transport, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def scan(self, guardrail: Guardrail, direction: Direction, texts: Sequence[str]) -> Verdict:
        """Raises ScannerAway, or NoCredential."""
        ask = _ask_bedrock if guardrail.kind == "bedrock" else _ask
        body = ask(guardrail, direction, texts)
        answer = await self._post(guardrail, body)
        try:
            return _applied(answer) if guardrail.kind == "bedrock" else _verdict(answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ScannerAway(f"its answer is not understood: {error}") from None

    async def _post(self, guardrail: Guardrail, body: bytes) -> bytes:
        headers = [(b"content-type", CONTENT_TYPE.encode()), *self._authorisation(guardrail, body)]
        try:
            async with (
                asyncio.timeout(guardrail.timeout_ms / 1000),
                self._client.stream("POST", guardrail.url, content=body, headers=headers, timeout=None) as response,
            ):
                return await _read(response)
        except (httpx.HTTPError, TimeoutError) as error:
            raise ScannerAway(f"{type(error).__name__}: {error}") from None

    def _authorisation(self, guardrail: Guardrail, body: bytes) -> list[Header]:
        ref = guardrail.credential_ref
        if ref is None:
            return []
        secret = self._secret(ref)
        if guardrail.kind != "bedrock" or not secret.startswith("{"):
            return [(b"authorization", b"Bearer " + secret.encode())]
        url = urlsplit(guardrail.url)
        host = url.netloc.rpartition("@")[2]
        return sign(aws_credential(ref, secret), "bedrock", host, url.path, body, CONTENT_TYPE, time.time())


def _ask(guardrail: Guardrail, direction: Direction, texts: Sequence[str]) -> bytes:
    return msgspec.json.encode({"guardrail": guardrail.id, "direction": direction, "texts": texts})


def _verdict(answer: bytes) -> Verdict:
    found = msgspec.json.decode(answer, type=_Answer)
    return Verdict(found.flagged, found.texts)


def _ask_bedrock(guardrail: Guardrail, direction: Direction, texts: Sequence[str]) -> bytes:
    content = [{"text": {"text": text}} for text in texts]
    return msgspec.json.encode({"source": direction.upper(), "content": content})


def _applied(answer: bytes) -> Verdict:
    """What a policy of the guardrail blocked comes back as a canned sentence, which is no redaction of the text."""
    applied = msgspec.json.decode(answer, type=_Applied)
    texts = [output.text for output in applied.outputs]
    return Verdict(applied.action != "NONE", None if b'"BLOCKED"' in answer else texts)


async def _read(response: httpx.Response) -> bytes:
    if response.status_code != 200:
        raise ScannerAway(f"it answered {response.status_code}")
    data = b""
    async for part in response.aiter_bytes():
        data += part
        if len(data) > MAX_ANSWER_BYTES:
            raise ScannerAway("its answer is too long")
    return data
