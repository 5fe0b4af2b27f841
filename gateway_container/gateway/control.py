"""The client of the control plane: config, leases, uploads, files (docs/gateway.md: wire contract)."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import IO, TypeVar

import httpx
import msgspec

from gateway.core import wire

T = TypeVar("T")


class ControlPlaneAway(Exception):
    """The control plane did not answer, or not as agreed."""


class MessageRefused(ControlPlaneAway):
    """The control plane will not take the message, however often it is sent."""


class Refused(Exception):
    """The control plane's answer to what a client wants of it: no."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


class _Problem(msgspec.Struct, frozen=True):
    code: str = ""
    detail: str = ""


PIECE_BYTES = 256 << 10
OBJECT_S = 60.0  # object storage may be slower than the control plane, and its bodies are larger
REFUSED = 422  # what the control plane itself says of a bad message; others on the way have other words


class ControlPlane:
    """One token for all calls. Every failure is a ControlPlaneAway, but for what ``ask`` is told."""

    def __init__(
        self, url: str, token: str, gateway_id: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.gateway_id = gateway_id
        self._base = url.rstrip("/")
        # Unbounded: downloads that go on at a client's pace must not keep config and leases waiting.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        timeout = httpx.Timeout(5.0)
        self._client = httpx.AsyncClient(timeout=timeout, limits=limits, transport=transport, trust_env=False)
        self._authorization = {"authorization": f"Bearer {token}"}
        self._etag = self._pending_etag = ""
        self.batches_wait = False  # to be claimed, as of the last poll

    async def config(self) -> bytes | None:
        """The snapshot document when it has changed since the last one that was kept, else None."""
        headers = self._authorization | ({"if-none-match": self._etag} if self._etag else {})
        response = await self._send(self._client.build_request("GET", f"{self._base}/gateway/config", headers=headers))
        self.batches_wait = response.headers.get("x-foundry-batches") == "waiting"
        if response.status_code == 304:
            return None
        if response.status_code != 200:
            raise ControlPlaneAway(f"GET /gateway/config answered {response.status_code}")
        self._pending_etag = response.headers.get("etag", "")
        return response.content

    def keep(self) -> None:
        """The last config is in force (or known to be broken): do not ask for it again."""
        self._etag = self._pending_etag

    async def lease(self, requests: Sequence[wire.LeaseRequest]) -> wire.LeaseReply:
        content = await self._post("/gateway/leases", {"gateway_id": self.gateway_id, "requests": requests})
        return decode(content, wire.LeaseReply)

    async def upload(self, batch_id: str, rows: int, data: bytes) -> None:
        """Put one gzipped batch of metering rows into object storage."""
        await self._put({"batch_id": batch_id, "rows": rows}, data)

    async def upload_captured(self, project_id: str, batch_id: str, rows: int, data: bytes) -> None:
        """The same with captured bodies of a project."""
        await self._put({"batch_id": batch_id, "rows": rows, "captured": project_id}, data)

    async def _put(self, order: dict[str, str | int], data: bytes) -> None:
        order |= {"gateway_id": self.gateway_id, "bytes": len(data)}
        await self.put(decode(await self._post("/gateway/uploads", order), wire.Upload), data)

    async def ask(
        self, method: str, path: str, message: object = None, query: Mapping[str, str | int] | None = None
    ) -> bytes:
        """What a client asks of the control plane through this gateway. Raises Refused."""
        response = await self._send(self._request(method, f"/gateway{path}", message, query))
        if response.is_success:
            return response.content
        if response.status_code not in (404, 409, 422):
            raise ControlPlaneAway(f"{method} {path} answered {response.status_code}")
        problem = _problem(response.content)
        raise Refused(response.status_code, problem.code, problem.detail)

    async def put(self, target: wire.Upload, content: bytes | IO[bytes]) -> None:
        """Put into object storage what the control plane allowed."""
        body = content if isinstance(content, bytes) else pieces(content)
        request = self._client.build_request(
            "PUT", target.url, content=body, headers=target.headers, timeout=httpx.Timeout(OBJECT_S)
        )
        response = await self._send(request)
        if not response.is_success:
            raise ControlPlaneAway(f"object storage answered {response.status_code}")

    async def get(self, url: str, first: int | None = None, last: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of an object in object storage, or of a range of it, as they come."""
        headers = {} if first is None else {"range": f"bytes={first}-{last}"}
        timeout = httpx.Timeout(OBJECT_S)
        try:
            async with self._client.stream("GET", url, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    raise ControlPlaneAway(f"object storage answered {response.status_code}")
                async for piece in response.aiter_bytes(PIECE_BYTES):
                    yield piece
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise ControlPlaneAway(f"object storage: {error!r}") from None

    async def close(self) -> None:
        await self._client.aclose()

    async def _post(self, path: str, message: object) -> bytes:
        response = await self._send(self._request("POST", path, message))
        if not response.is_success:
            failure = MessageRefused if response.status_code == REFUSED else ControlPlaneAway
            raise failure(f"POST {path} answered {response.status_code}")
        return response.content

    def _request(
        self, method: str, path: str, message: object = None, query: Mapping[str, str | int] | None = None
    ) -> httpx.Request:
        body = None if message is None else msgspec.json.encode(message)
        headers = self._authorization | ({"content-type": "application/json"} if body is not None else {})
        return self._client.build_request(
            method, self._base + path, content=body, params=query or None, headers=headers
        )

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._client.send(request)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise ControlPlaneAway(f"{request.method} {request.url.path}: {error!r}") from None


async def pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    """The whole file, read beside the event loop."""
    file.seek(0)
    while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
        yield piece


def _problem(content: bytes) -> _Problem:
    try:
        return msgspec.json.decode(content, type=_Problem)
    except msgspec.MsgspecError:
        return _Problem()


def decode(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise ControlPlaneAway(f"the control plane's answer does not fit the contract: {error}") from None
