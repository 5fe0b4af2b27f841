"""How one gateway process is configured: a plain object, from the environment in a container."""

import contextlib
import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway.geoip import Countries

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")  # the ids that begin with it have 128 at most
TOKEN: Final = re.compile(r"[!-~]+")
HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+=[ -~]*")
TRUE: Final = frozenset({"1", "true", "yes"})
FALSE: Final = frozenset({"0", "false", "no", ""})
SECONDS: Final = (0.001, 10**9)
SIZES: Final = (1, 2**53)
AMOUNTS: Final = (0, 10**18)
RANGES: Final[dict[str, tuple[float, float]]] = {
    "port": (0, 65535), "workers": (0, 1024), "batch_rows": (1, 10**6), "trace_ratio": (0, 1), "drain_s": (0, 10**9),
    "lease_wait_s": (0, 10**9), "fail_open_requests": AMOUNTS, "fail_open_tokens": AMOUNTS,
    "fail_open_money_nanos": AMOUNTS, "shadow_copies": AMOUNTS, "cache_bytes": AMOUNTS,
    "batch_lines": (0, 64),
}  # fmt: skip


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
    batch_lines: int = 8  # of a batch that are under way at a time; 0: this gateway runs no batches
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
        text = environment.get(_variable(name))
        if name == "gateway_token":
            text = environment.get("GATEWAY_TOKEN", _from_file(environment.get("GATEWAY_TOKEN_FILE")))
        if text is not None:
            values[name] = _parse(name, str(example.type), text)
    for name in ("control_plane_url", "gateway_token", "spool_dir"):
        if not values.get(name):
            raise BadSetting(f"Set {'GATEWAY_TOKEN (or GATEWAY_TOKEN_FILE)' if 'token' in name else _variable(name)}.")
    settings = Settings(**values)  # type: ignore[arg-type]
    _refuse_unsound(settings)
    return settings


def refuse_unusable(spool_dir: Path) -> None:
    """Raises BadSetting when nothing can be kept there. Asked once, not by each worker."""
    try:
        spool_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=spool_dir).close()
    except OSError as error:
        raise BadSetting(f"GATEWAY_SPOOL_DIR={str(spool_dir)!r} cannot be written to: {error.strerror}.") from None


def _variable(name: str) -> str:
    return "GATEWAY_" + name.upper()


def _from_file(path: str | None) -> str | None:
    try:
        return Path(path).read_text().strip() if path else None
    except (OSError, ValueError) as error:
        raise BadSetting(f"GATEWAY_TOKEN_FILE {path} cannot be read: {error}.") from None


def _parse(name: str, kind: str, text: str) -> object:
    if "Path" in kind:
        return Path(text) if text else None
    if "tuple" in kind:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if "bool" in kind:
        return _truth(name, text)
    return _number(name, "int" in kind, text) if "int" in kind or "float" in kind else text


def _truth(name: str, text: str) -> bool:
    if text.lower() not in TRUE | FALSE:
        raise BadSetting(f"{_variable(name)}={text!r} is neither true nor false.")
    return text.lower() in TRUE


def _number(name: str, whole: bool, text: str) -> float:
    low, high = RANGES.get(name) or (SECONDS if name.endswith("_s") else SIZES)
    with contextlib.suppress(ValueError):
        number = int(text) if whole else float(text)
        if low <= number <= high:  # no NaN
            return number
    raise BadSetting(f"{_variable(name)}={text!r} is not a {'whole ' * whole}number from {low:,} to {high:,}.")


def _refuse_unsound(settings: Settings) -> None:
    """Raises BadSetting for what would stop the gateway later, or have the control plane refuse all that it says."""
    if TOKEN.fullmatch(settings.gateway_token) is None:
        raise BadSetting("The gateway token holds characters that no token has. Set GATEWAY_TOKEN anew.")
    if not all(map(HEADER.fullmatch, settings.otlp_headers)):  # which may be secrets
        raise BadSetting("GATEWAY_OTLP_HEADERS must have entries name=value.")
    for name, value, sound, advice in _checks(settings):
        if not sound:
            raise BadSetting(f"{_variable(name)}={value!r} must {advice}.")
    if settings.geoip_file is not None:
        _refuse_unreadable(settings.geoip_file)


def _checks(settings: Settings) -> Iterator[tuple[str, str, bool, str]]:
    """Name, value, whether it is sound, and what it must do to be."""
    id_, url, otlp_url, level = settings.name, settings.control_plane_url, settings.otlp_url, settings.log_level
    characters = "have at most 80 letters, digits, '.', '_' and '-', and begin with a letter or a digit"
    yield "gateway_id", id_, NAME.fullmatch(id_) is not None, characters
    yield "control_plane_url", url, _is_url(url), "be an http(s) URL"
    yield "otlp_url", otlp_url, not otlp_url or _is_url(otlp_url), "be an http(s) URL"
    yield "log_level", level, level.upper() in logging.getLevelNamesMapping(), "be DEBUG, INFO, WARNING or ERROR"
    for proxy in settings.trusted_proxies:
        yield "trusted_proxies", proxy, _is_network(proxy), "have networks, such as 10.0.0.0/8"


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and text.isprintable()
    except ValueError:
        return False


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _refuse_unreadable(geoip_file: Path) -> None:
    try:
        Countries(geoip_file)
    except OSError as error:
        raise BadSetting(f"GATEWAY_GEOIP_FILE cannot be used: {error}.") from None
