"""Where a request goes, by its path, and what each place allows."""

from dataclasses import dataclass

API_BODY_BYTES = 10 * 1024 * 1024
API_ANSWER_S = 30.0
GATEWAY_BODY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Upstream:
    """A server behind the front. ``prefix`` is put before the path; ``answer_s`` limits the wait for the first byte."""

    host: str
    port: int
    name: str
    prefix: str = ""
    body_bytes: int = API_BODY_BYTES
    answer_s: float | None = API_ANSWER_S


def api_upstream(host: str, port: int, api_id: str) -> Upstream:
    """An HTTP API of the emulator, on its ``$default`` stage."""
    return Upstream(host, port, "the API", prefix=f"/_aws/execute-api/{api_id}")


def gateway_upstream(host: str, port: int) -> Upstream:
    return Upstream(host, port, "the gateway", body_bytes=GATEWAY_BODY_BYTES, answer_s=None)


@dataclass
class Routes:
    """By the first segment of the path; ``default`` takes what ``named`` does not. Both may change at any time."""

    named: dict[str, Upstream]
    default: Upstream

    def upstream(self, path: bytes) -> Upstream:
        return self.named.get(path.lstrip(b"/").partition(b"/")[0].partition(b"?")[0].decode("latin-1"), self.default)
