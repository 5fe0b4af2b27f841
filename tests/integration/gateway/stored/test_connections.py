"""Files and batches share the connections to the control plane with config and leases."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gateway.control import ControlPlane

DOWNLOADS = 101  # one more than httpx keeps by itself
LEASES = b'{"leases":[]}'


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Objects begin and do not end; all else is answered at once."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"GET /object"):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 300_000)
        return
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(LEASES), LEASES))


@contextlib.asynccontextmanager
async def _control() -> AsyncIterator[tuple[ControlPlane, str]]:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    control = ControlPlane(url, "token", "gw-1")
    try:
        yield control, url
    finally:
        await control.close()
        server.close()
        server.close_clients()


async def test_slow_downloads_do_not_keep_leases_waiting() -> None:
    async with _control() as (control, url):
        downloads = [control.get(f"{url}/object") for _ in range(DOWNLOADS)]
        for download in downloads:
            await anext(download)
        assert (await control.lease([])).leases == []
        for download in downloads:
            await download.aclose()  # type: ignore[attr-defined]
