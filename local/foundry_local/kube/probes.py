"""HTTP probes as the kubelet makes them: a fresh connection, any status from 200 to 399 is success."""

import asyncio
from contextlib import suppress

from foundry_local.kube.containers import HttpProbe


async def probe_http(probe: HttpProbe, address: tuple[str, int] | None, shown_host: str) -> str:
    """One attempt; returns why it failed, empty on success. `address` None means nothing listens on that port."""
    url = f'"http://{shown_host}:{probe.port}{probe.path}"'
    if address is None:
        return f"Get {url}: dial tcp {shown_host}:{probe.port}: connect: connection refused"
    try:
        status = await asyncio.wait_for(_get_status(probe.path, address), probe.timeout_s)
    except TimeoutError:
        return f"Get {url}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    except (OSError, ValueError, asyncio.IncompleteReadError):
        return f"Get {url}: dial tcp {shown_host}:{probe.port}: connect: connection refused"
    return "" if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}"


async def _get_status(path: str, address: tuple[str, int]) -> int:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\nUser-Agent: kube-probe/1.33\r\n\r\n".encode()
        )
        line = await reader.readuntil(b"\r\n")
        return int(line.split()[1])
    except IndexError as problem:
        raise ValueError("no status line") from problem
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


class ProbeState:
    """Consecutive results against the thresholds."""

    def __init__(self, probe: HttpProbe, *, passing: bool) -> None:
        self._probe = probe
        self._successes = 0
        self._failures = 0
        self.passing = passing
        self.exhausted = False

    @property
    def steady(self) -> bool:
        """It passes, and the last attempt was no failure."""
        return self.passing and not self._failures

    def record(self, success: bool) -> None:
        self._successes = self._successes + 1 if success else 0
        self._failures = 0 if success else self._failures + 1
        if self._successes >= self._probe.success_threshold:
            self.passing = True
        if self._failures >= self._probe.failure_threshold:
            self.passing = False
            self.exhausted = True
