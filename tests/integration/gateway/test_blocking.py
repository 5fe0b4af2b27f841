"""Callers that are refused whatever key they have: by address, country, user agent and rate."""

import ipaddress
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from gateway.core.blocking import Blocking, Rates
from gateway.core.problems import Rejected
from gateway.core.snapshot import Snapshot, load
from gateway.geoip import Countries
from gateway.runtime import Gateway
from gateway.settings import Settings

MINUTE_MS = 60_000
START_MS = 1_700_000_040_000  # the start of a minute
AGENT = "curl/8"
Tree = list[Any]


def encoded(value: Any) -> bytes:
    """A value of MaxMind DB's data section."""
    if isinstance(value, dict):
        return bytes([7 << 5 | len(value)]) + b"".join(encoded(k) + encoded(v) for k, v in value.items())
    if isinstance(value, str):
        return bytes([2 << 5 | len(value)]) + value.encode()
    return bytes(value)


def short(value: int) -> bytes:
    return b"\xa2" + struct.pack(">H", value)


def database(networks: dict[str, Any]) -> bytes:
    """A MaxMind DB of IPv4 networks: https://maxmind.github.io/MaxMind-DB/"""
    root: Tree = [None, None]
    data, offsets = b"", {}
    for text, value in networks.items():
        network = ipaddress.IPv4Network(text)
        offsets[text] = len(data)
        data += encoded(value)
        node = root
        for bit in range(network.prefixlen - 1):
            side = int(network.network_address) >> (31 - bit) & 1
            node[side] = node = node[side] or [None, None]
        node[int(network.network_address) >> (32 - network.prefixlen) & 1] = text
    nodes: list[Tree] = [root]
    for found in nodes:
        nodes += [side for side in found if isinstance(side, list)]
    numbers = {id(found): number for number, found in enumerate(nodes)}

    def record(side: Any) -> bytes:
        target = numbers[id(side)] if isinstance(side, list) else len(nodes)
        if isinstance(side, str):
            target += 16 + offsets[side]
        return struct.pack(">I", target)

    tree = b"".join(record(side) for found in nodes for side in found)
    about = {"node_count": b"\xc4" + struct.pack(">I", len(nodes)), "record_size": short(32), "ip_version": short(4),
             "binary_format_major_version": short(2), "binary_format_minor_version": short(0),
             "build_epoch": b"\x01\x02\x01", "database_type": "Test", "description": {},
             "languages": b"\x00\x04"}  # fmt: skip
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + encoded(about)


@pytest.fixture
def geoip(tmp_path: Path) -> Path:
    path = tmp_path / "countries.mmdb"
    path.write_bytes(
        database({
            "203.0.113.0/24": {"country": {"iso_code": "XA"}},
            "198.51.100.0/25": {"registered_country": {"iso_code": "XB"}},
            "127.0.0.0/8": {"country": {"iso_code": "XC"}},
            "192.0.2.0/24": {"continent": {"code": "EU"}},
        })
    )  # fmt: skip
    return path


def with_rules(*rules: tuple[str, str]) -> Snapshot:
    blocking = [{"id": str(number), "kind": kind, "value": value} for number, (kind, value) in enumerate(rules)]
    return load(json.dumps({"version": 1, "keys": [], "endpoints": [], "blocking": blocking}).encode())


def code_of(blocking: Blocking, snapshot: Snapshot, client_ip: str, agent: str = AGENT, now_ms: int = START_MS) -> str:
    try:
        blocking.refuse(snapshot, client_ip, agent, now_ms)
    except Rejected as problem:
        return problem.code
    return ""


def test_addresses_and_user_agents() -> None:
    snapshot, blocking = with_rules(("cidr", "1.2.3.0/24"), ("user_agent", "BadBot")), Blocking()
    assert code_of(blocking, snapshot, "1.2.4.1") == ""
    assert code_of(blocking, snapshot, "1.2.3.4") == code_of(blocking, snapshot, "9.9.9.9", "x badbot/2") == "blocked"


@pytest.mark.parametrize(
    ("client_ip", "expected"),
    [("203.0.113.9", "XA"), ("198.51.100.1", "XB"), ("198.51.100.200", None), ("192.0.2.1", None),
     ("2001:db8::1", None), ("nonsense", None), ("", None)],
)  # fmt: skip
def test_the_country_of_an_address(geoip: Path, client_ip: str, expected: str | None) -> None:
    assert Countries(geoip)(client_ip) == expected


def test_countries_are_blocked_and_the_unknown_is_not(geoip: Path) -> None:
    snapshot, blocking = with_rules(("country", "xa"), ("country", "ZZ")), Blocking()
    assert code_of(blocking, snapshot, "203.0.113.9") == "", "nobody knows countries without a file"
    blocking.country_of = Countries(geoip)
    assert code_of(blocking, snapshot, "203.0.113.9") == "blocked"
    assert code_of(blocking, snapshot, "198.51.100.1") == code_of(blocking, snapshot, "8.8.8.8") == ""


def test_a_file_that_is_no_database_is_refused_with_its_setting(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"not a database")
    with pytest.raises(OSError, match="GATEWAY_GEOIP_FILE"):
        Countries(path)


def test_the_rate_is_counted_per_client_and_minute() -> None:
    snapshot, blocking = with_rules(("rate", "3"), ("rate", "10")), Blocking()
    found = [code_of(blocking, snapshot, "8.8.8.8", now_ms=START_MS + n) for n in range(5)]
    assert found == ["", "", "", "rate_limit_exceeded", "rate_limit_exceeded"]
    assert code_of(blocking, snapshot, "8.8.4.4") == ""
    assert code_of(blocking, snapshot, "8.8.8.8", now_ms=START_MS + MINUTE_MS) == ""


def test_an_ipv6_network_counts_as_one_client() -> None:
    rates = Rates()
    assert [rates.count(f"2001:db8::{n}", 0) for n in range(1, 4)] == [1, 2, 3]
    assert rates.count("2001:db8:1::1", 0) == 1
    assert [rates.count("::ffff:8.8.8.8", 0), rates.count("8.8.8.8", 0)] == [1, 2]


def test_many_clients_need_no_more_memory_than_allowed() -> None:
    rates = Rates(capacity=100)
    for n in range(1000):
        rates.count(f"10.0.{n // 250}.{n % 250}", 0)
    assert len(rates.counts) == 100
    assert rates.count("10.0.3.249", 0) == 2, "the newest are remembered"


async def test_the_rules_hold_on_every_path_and_before_the_key(stack: Any, geoip: Path) -> None:
    stack.gateway.policy.blocking.country_of = Countries(geoip)
    await stack.reconfigure(blocking=[{"id": "b", "kind": "country", "value": "XC"}])
    for key in ("sk-test-1", "sk-wrong"):
        refused = await stack.chat(key=key)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "blocked")
    for path in ("/v1/models", "/metrics", "/nope"):
        refused = await stack.client.get(path, headers=stack.headers())
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "blocked")
    assert (await stack.client.get("/health")).status_code == 200
    assert not any(engine.requests for engine in stack.engines)
    await stack.reconfigure(blocking=[])
    assert (await stack.chat()).status_code == 200


async def test_a_client_that_asks_too_often_is_told_when_to_come_back(stack: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(stack.gateway.policy.blocking.rates, "count", Fixed(Rates()))
    await stack.reconfigure(blocking=[{"id": "b", "kind": "rate", "value": "2"}])
    answers = [await stack.chat(key=key) for key in ("sk-test-1", "sk-wrong", "sk-test-1")]
    assert [answer.status_code for answer in answers] == [200, 401, 429]
    assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60


class Fixed:
    """All requests within one minute, whatever the clock says."""

    def __init__(self, rates: Rates) -> None:
        self.count = rates.count

    def __call__(self, client_ip: str, now_ms: int) -> int:
        return self.count(client_ip, START_MS)


def test_the_setting_names_the_file(geoip: Path, tmp_path: Path) -> None:
    async def made() -> str | None:
        gateway = Gateway(Settings("http://127.0.0.1:1", "t", tmp_path / "spool", geoip_file=geoip))
        return gateway.policy.blocking.country_of("203.0.113.9")

    import asyncio

    assert asyncio.run(made()) == "XA"


class TestBehindAProxy:
    @pytest.fixture
    def gateway_settings(self) -> dict[str, Any]:
        return {"trusted_proxies": ("127.0.0.0/8",)}

    @pytest.mark.parametrize("request_line", [b"POST /v1/chat/completions", b"GET /v1/models"])
    @pytest.mark.parametrize(
        ("lines", "status"),
        [
            (b"X-Forwarded-For: 8.8.8.8\r\nx-forwarded-for: 9.9.9.9\r\n", b"403"),
            (b"X-Forwarded-For: 9.9.9.9\r\nx-forwarded-for: 8.8.8.8\r\n", b"200"),
            (b"X-Forwarded-For: 8.8.8.8\r\nx-forwarded-for: 8.8.8.8\r\nX-Forwarded-For: 9.9.9.9\r\n", b"403"),
            (b"X-Forwarded-For: 9.9.9.9\r\nx-forwarded-for: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8\r\n", b"200"),
        ],
    )
    async def test_the_last_line_says_who_asks(
        self, stack: Any, request_line: bytes, lines: bytes, status: bytes
    ) -> None:
        await stack.reconfigure(blocking=[{"id": "b", "kind": "cidr", "value": "9.9.9.9/32"}])
        body = json.dumps({"model": "llama", "messages": []}).encode() if request_line.startswith(b"POST") else b""
        head = b"%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer sk-test-1\r\n" % request_line
        answer = await stack.raw(head + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer[9:12] == status, answer
