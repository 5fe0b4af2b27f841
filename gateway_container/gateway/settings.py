"""How one gateway process is configured: a plain object, from the environment in a container."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class BadSetting(Exception):
    """An environment variable is missing or cannot be understood."""


@dataclass(frozen=True)
class Settings:
    """Everything that a gateway needs to know before it has its config snapshot."""

    control_plane_url: str
    gateway_token: str = field(repr=False)
    spool_dir: Path
    gateway_id: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 0  # 0: one per core
    log_level: str = "INFO"
    poll_s: float = 1.0
    flush_s: float = 5.0
    batch_rows: int = 5000
    lease_wait_s: float = 2.0
    max_body_bytes: int = 64 << 20
    stream_body_bytes: int = 1 << 20  # a longer form is passed on while it comes
    max_header_bytes: int = 32 << 10
    header_timeout_s: float = 15.0
    body_timeout_s: float = 120.0
    connect_timeout_s: float = 3.0
    first_byte_timeout_s: float = 120.0
    idle_timeout_s: float = 60.0
    total_timeout_s: float = 900.0
    keep_alive_s: float = 75.0
    drain_s: float = 30.0
    max_connections: int = 16384
    trusted_proxies: tuple[str, ...] = ()
    credentials_dir: Path | None = None
    geoip_file: Path | None = None  # MaxMind DB; blocking by country needs it
    access_log: bool = False  # JSON lines on standard output
    server_timing: bool = False  # tell clients where the time went
    otlp_url: str = ""  # of an OpenTelemetry collector, without /v1/traces
    otlp_headers: tuple[str, ...] = ()  # name=value
    trace_ratio: float = 0.01  # of requests that come without a trace of their own
    fail_open_requests: int = 60  # per scope and minute while the control plane is away; 0: fail closed
    fail_open_tokens: int = 100_000
    fail_open_money_nanos: int = 0
    fsync: bool = False
    shadow_copies: int = 16  # under way at a time, per process; more are skipped
    cache_bytes: int = 64 << 20  # of answers kept, per process; an answer takes at most an eighth

    @property
    def name(self) -> str:
        return self.gateway_id or socket.gethostname()

    @property
    def open_bounds(self) -> dict[str, int]:
        """What each scope may use per minute without a lease while the control plane is away."""
        return {
            "requests": self.fail_open_requests,
            "tokens": self.fail_open_tokens,
            "money_nanos": self.fail_open_money_nanos,
        }


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from ``GATEWAY_*`` variables. Raises BadSetting with what to do."""
    values: dict[str, object] = {}
    for name, example in Settings.__dataclass_fields__.items():
        text = environment.get("GATEWAY_" + name.upper())
        if name == "gateway_token":
            text = environment.get("GATEWAY_TOKEN", _from_file(environment.get("GATEWAY_TOKEN_FILE")))
        if text is not None:
            values[name] = _parse(name, str(example.type), text)
    for name in ("control_plane_url", "gateway_token", "spool_dir"):
        if not values.get(name):
            variable = "GATEWAY_TOKEN (or GATEWAY_TOKEN_FILE)" if name == "gateway_token" else "GATEWAY_" + name.upper()
            raise BadSetting(f"Set {variable}.")
    return Settings(**values)  # type: ignore[arg-type]


def _from_file(path: str | None) -> str | None:
    return Path(path).read_text().strip() if path else None


def _parse(name: str, kind: str, text: str) -> object:
    try:
        if "Path" in kind:
            return Path(text) if text else None
        if "tuple" in kind:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if "bool" in kind:
            return text.lower() in ("1", "true", "yes")
        return int(text) if "int" in kind else float(text) if "float" in kind else text
    except ValueError:
        raise BadSetting(f"GATEWAY_{name.upper()}={text!r} is not a number.") from None
