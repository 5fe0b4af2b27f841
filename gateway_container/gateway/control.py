"""The client of the control plane: config, leases, uploads (docs/gateway.md: wire contract)."""

from collections.abc import Sequence
from typing import TypeVar

import httpx
import msgspec

from gateway.core import wire

T = TypeVar("T")


class ControlPlaneAway(Exception):
    """The control plane did not answer, or not as agreed."""


class MessageRefused(ControlPlaneAway):
    """The control plane will not take the message, however often it is sent."""


REFUSED = 422  # what the control plane itself says of a bad message; others on the way have other words


class ControlPlane:
    """Three calls, one token. Every failure is a ControlPlaneAway."""

    def __init__(
        self, url: str, token: str, gateway_id: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.gateway_id = gateway_id
        self._base = url.rstrip("/")
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(5.0), transport=transport, trust_env=False)
        self._authorization = {"authorization": f"Bearer {token}"}
        self._etag = self._pending_etag = ""

    async def config(self) -> bytes | None:
        """The snapshot document when it has changed since the last one that was kept, else None."""
        headers = self._authorization | ({"if-none-match": self._etag} if self._etag else {})
        response = await self._send(self._client.build_request("GET", f"{self._base}/gateway/config", headers=headers))
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
        return _decode(content, wire.LeaseReply)

    async def upload(self, batch_id: str, rows: int, data: bytes) -> None:
        """Put one gzipped batch of metering rows into object storage."""
        await self._put({"batch_id": batch_id, "rows": rows}, data)

    async def upload_captured(self, project_id: str, batch_id: str, rows: int, data: bytes) -> None:
        """The same with captured bodies of a project."""
        await self._put({"batch_id": batch_id, "rows": rows, "captured": project_id}, data)

    async def _put(self, order: dict[str, str | int], data: bytes) -> None:
        order |= {"gateway_id": self.gateway_id, "bytes": len(data)}
        target = _decode(await self._post("/gateway/uploads", order), wire.Upload)
        response = await self._send(self._client.build_request("PUT", target.url, content=data, headers=target.headers))
        if not response.is_success:
            raise ControlPlaneAway(f"the upload of {order['batch_id']} answered {response.status_code}")

    async def close(self) -> None:
        await self._client.aclose()

    async def _post(self, path: str, message: object) -> bytes:
        headers = self._authorization | {"content-type": "application/json"}
        body = msgspec.json.encode(message)
        request = self._client.build_request("POST", self._base + path, content=body, headers=headers)
        response = await self._send(request)
        if not response.is_success:
            failure = MessageRefused if response.status_code == REFUSED else ControlPlaneAway
            raise failure(f"POST {path} answered {response.status_code}")
        return response.content

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._client.send(request)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise ControlPlaneAway(f"{request.method} {request.url.path}: {error!r}") from None


def _decode(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise ControlPlaneAway(f"the control plane's answer does not fit the contract: {error}") from None
