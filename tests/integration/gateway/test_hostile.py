"""Hostile and broken peers on either side of the hot path: a right answer each time, and nothing left behind."""

import asyncio
import contextlib
import errno
import gc
import itertools
import json
import socket
import time
from hashlib import sha256
from ipaddress import ip_network
from typing import Any

import pytest
from gateway.flow import Flow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture
def gateway_settings() -> dict[str, Any]:
    return {"max_body_bytes": 2 << 20}


pytestmark = pytest.mark.parametrize("form", ["hot"], indirect=True)

CHAT = json.dumps({"model": "llama", "messages": [{"role": "user", "content": "hi"}]}).encode()
STREAM = json.dumps({"model": "llama", "messages": [], "stream": True}).encode()
PART = b"5\r\n--b\r\n\r\n"  # the beginning of a form, in a chunk
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-test-1\r\n"


def request(body: bytes, more: bytes = b"") -> bytes:
    return HEAD + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def nothing_left(stack: Any) -> None:
    """No connection, no reservation and no request in flight may remain."""
    for _ in range(200):
        outstanding = sum(d.outstanding for d in stack.gateway.policy.snapshot.deployments.values())
        if outstanding == 0:
            return
        await asyncio.sleep(0.01)
    pytest.fail("a request is still counted as in flight")


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="cl+te"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", id="te+cl"),
        pytest.param(HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", id="two lengths"),
        pytest.param(HEAD + b"Content-Length: +4\r\n\r\nabcd", id="signed length"),
        pytest.param(HEAD + b"Content-Length: 4 4\r\n\r\nabcd", id="length list"),
        pytest.param(HEAD + b"X-A: b\r\n folded\r\nContent-Length: 0\r\n\r\n", id="obs-fold"),
        pytest.param(HEAD + b"X A: b\r\nContent-Length: 0\r\n\r\n", id="space in name"),
        pytest.param(HEAD + b"X-A : b\r\nContent-Length: 0\r\n\r\n", id="space before colon"),
        pytest.param(HEAD + b"X-A: b\0c\r\nContent-Length: 0\r\n\r\n", id="nul in value"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", id="chunked not last"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", id="chunked twice"),
        pytest.param(HEAD + b"Host: x\r\n\r\n", id="two hosts"),
        pytest.param(HEAD + b"host: y\r\n\r\n", id="two hosts in two spellings"),
        pytest.param(HEAD.replace(b"Host: x\r\n", b"") + b"\r\n", id="no host"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: x\r\nHost: x\r\nHost: x\r\n\r\n", id="three hosts"),
        pytest.param(b"GET /health HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", id="two hosts in HTTP/1.0"),
        pytest.param(HEAD + b"Host: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", id="two hosts and an offer"),
        *(
            pytest.param(HEAD.replace(b"Host: x", b"Host: " + host) + b"\r\n", id=f"host {host!r}")
            for host in (
                b"a b",
                b"a,b",
                b"user@x",
                b"x/y",
                b"http://x",
                b"x:8o",
                b"[::1",
                b"x?y",
                b"x\ty",
                b"x\\y",
                b"\xe4",
            )
        ),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", id="bad chunk size"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n", id="bad chunk end"),
        pytest.param(b"GARBAGE\r\n\r\n", id="garbage"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="tls hello"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="h2 preface"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", id="odd version"),
    ],
)
async def test_what_could_be_read_in_two_ways_is_refused_and_closed(stack: Any, attack: bytes) -> None:
    answer = await stack.raw(attack + request(CHAT))
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:80]
    assert answer.count(b"HTTP/1.1 4") == 1 and b"HTTP/1.1 2" not in answer, (
        "what follows a broken request must not be read as a request"
    )
    assert not any(engine.requests for engine in stack.engines)


@pytest.mark.parametrize(
    "coding",
    [
        b"gzip, chunked",
        b"gzip",
        b"xchunked",
        b"gzip\r\nTransfer-Encoding: chunked",
        b"gzip\r\ntransfer-encoding: chunked",
    ],
)
async def test_no_transfer_coding_but_chunked_is_understood(stack: Any, coding: bytes) -> None:
    """RFC 9112, 6.1. Passed on unread, the body would be something else than what was checked."""
    answer = await stack.raw(HEAD + b"Transfer-Encoding: %b\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (coding, len(CHAT), CHAT))
    assert answer.startswith(b"HTTP/1.1 501 ") and answer.count(b"HTTP/1.1") == 1 and b"connection: close" in answer
    assert not any(engine.requests for engine in stack.engines)


async def test_a_repeated_head_is_learned_only_when_it_is_sound(stack: Any) -> None:
    """Other connections recognise heads that one has learned."""
    for _ in range(3):
        assert (await stack.raw(request(CHAT, b"Host: y\r\n"))).startswith(b"HTTP/1.1 400 ")
    assert (await stack.raw(request(CHAT, b"Connection: close\r\n"))).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("more", [b"", b"Upgrade: h2c\r\nConnection: keep-alive, upgrade\r\n"])
async def test_a_client_of_http_1_0_needs_no_host(stack: Any, more: bytes) -> None:
    answer = await stack.raw(b"GET /health HTTP/1.0\r\n" + more + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200 "), answer


@pytest.mark.parametrize("host", [b"x", b"x:80", b"10.0.0.1:", b"[2001:db8::1]:443", b"a_b.example.com", b""])
async def test_hosts_of_every_shape_are_taken(stack: Any, host: bytes) -> None:
    answer = await stack.raw(b"GET /health HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host)
    assert answer.startswith(b"HTTP/1.1 200 "), answer


async def test_an_absolute_target_of_another_host_is_answered(stack: Any) -> None:
    """RFC 9112, 3.2.2: it counts, not the Host line; this gateway is whatever host is asked for."""
    answer = await stack.raw(b"GET http://a:1/health HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 "), answer


@pytest.mark.parametrize("authority", [b"user@x", b"user:word@x", b"a b", b"a,b"])
async def test_an_absolute_target_names_a_host_alone(stack: Any, authority: bytes) -> None:
    """Seen on the hot path alone: an ASGI application is not told of it."""
    answer = await stack.raw(b"GET http://%b/health HTTP/1.1\r\nHost: x\r\n\r\n" % authority)
    assert answer.startswith(b"HTTP/1.1 400 "), answer


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_offer_to_upgrade_of_who_closes_is_ignored(stack: Any, version: bytes) -> None:
    """RFC 9110, 7.8: in HTTP/1.0 it must be."""
    close = b"" if version == b"1.0" else b", close"
    offer = request(CHAT, b"Upgrade: h2c\r\nConnection: upgrade%b\r\n" % close).replace(b"HTTP/1.1", b"HTTP/" + version)
    answer = await stack.raw(offer)
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"HTTP/1.1 ") == 1, answer
    assert [r.body for engine in stack.engines for r in engine.requests] == [CHAT]


async def test_oversized_heads_are_refused(stack: Any) -> None:
    answer = await stack.raw(HEAD + b"X-A: " + b"a" * 70_000)
    assert answer.startswith(b"HTTP/1.1 431 ")
    many = b"".join(b"X-%d: %s\r\n" % (n, b"a" * 100) for n in range(2000))
    assert (await stack.raw(HEAD + many)).startswith(b"HTTP/1.1 431 ")


async def test_oversized_bodies_are_refused_before_they_are_kept(stack: Any) -> None:
    limit = stack.gateway.settings.max_body_bytes
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % (limit * 2))
    answered = asyncio.create_task(reader.read(4096))
    block = b"a" * (1 << 20)
    with contextlib.suppress(ConnectionError):
        while not answered.done():
            writer.write(block)
            await writer.drain()
    assert (await answered).startswith(b"HTTP/1.1 413 ")
    writer.close()


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (b"Content-Length: 1000000000000\r\n", b"413"),
        (b"Expect: 100-continue\r\nContent-Length: 1000000000000\r\n", b"413"),
        (b"Expect: 100-continue\r\nContent-Length: 10\r\nAuthorization: Bearer nobody\r\n", b"401"),
        (b"Content-Length: 1000000\r\nAuthorization: Bearer nobody\r\n", b"401"),
    ],
)
async def test_a_body_of_no_use_is_refused_before_it_is_sent(stack: Any, more: bytes, status: bytes) -> None:
    answer = await stack.raw(HEAD + more + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status + b" ") and b"connection: close" in answer
    await nothing_left(stack)


@pytest.mark.parametrize("more", [0, 1])
async def test_the_greatest_body_is_exact(stack: Any, more: int) -> None:
    limit = stack.gateway.settings.max_body_bytes
    frame = json.dumps({"model": "llama", "messages": [{"role": "user", "content": "@"}]})
    body = frame.replace("@", "a" * (limit - len(frame) + 1 + more)).encode()
    response = await stack.client.post("/v1/chat/completions", content=body, headers=stack.headers())
    assert response.status_code == (413 if more else 200)


async def test_refused_requests_do_not_wait_for_the_garbage_collector(stack: Any) -> None:
    """A cycle would keep the body of a refused request for as long as the collector, which is rarely run, lets it."""
    too_long = b'{"model":"llama","x":"' + b"a" * stack.gateway.settings.max_body_bytes + b'"}'
    gc.collect()
    gc.disable()
    stack.config["keys"].append({"id": "k", "sha256": sha256(b"sk-poor").hexdigest(), "project_id": "prj_1"})
    stack.config["keys"][-1]["limits"] = {"budget_nanos": 1}
    await stack.reconfigure()
    try:
        for key, body in (
            ("sk-poor", CHAT),
            ("sk-wrong", CHAT),
            ("sk-test-1", b"{nope"),
            ("sk-test-1", too_long),
            ("sk-test-1", CHAT),
        ):
            await stack.client.post("/v1/chat/completions", content=body, headers=stack.headers(key))
        assert len({row["error_code"] for row in await stack.rows(5)}) == 5
        assert not [found for found in gc.get_objects() if isinstance(found, Flow)]
    finally:
        gc.enable()


async def test_a_stranger_cannot_send_a_large_body(stack: Any) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(head + b"a" * 200_000)
    assert (await reader.read(4096)).startswith(b"HTTP/1.1 401 ")
    writer.close()


async def test_fragments_of_seven_bytes(stack: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = request(CHAT)
    for at in range(0, len(data), 7):
        writer.write(data[at : at + 7])
        await asyncio.sleep(0)
    assert (await reader.read(4096)).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize("pause_after", [20, 110, len(HEAD) + 60])
async def test_headers_pass_wherever_the_segments_end(stack: Any, pause_after: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    data = request(CHAT, b"Traceparent: 00-1-2-03\r\nX-Request-Id: mine\r\n")
    writer.write(data[:pause_after])
    await asyncio.sleep(0.03)
    writer.write(data[pause_after:])
    assert (await reader.read(4096)).startswith(b"HTTP/1.1 200 ")
    [seen] = [r for engine in stack.engines for r in engine.requests if r.headers["x-request-id"] == "mine"]
    assert seen.headers["traceparent"] == "00-1-2-03" and seen.body == CHAT
    writer.close()


async def test_chunked_request_bodies(stack: Any) -> None:
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in CHAT) + b"0\r\n\r\n"
    answer = await stack.raw(HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunked)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [r.body for e in stack.engines for r in e.requests] == [CHAT]


@pytest.mark.parametrize("cut", [0, -len(CHAT) - 90, -30])
async def test_trailers_are_no_headers(stack: Any, cut: int) -> None:
    """A proxy in front says who asks, in the head: what a client sends behind its body must not take that place."""
    await stack.reconfigure(blocking=[{"id": "b", "kind": "user_agent", "value": "bad-agent"}])
    body = b"%x\r\n%b\r\n0\r\n" % (len(CHAT), CHAT)
    chunked = b"Connection: close\r\nTransfer-Encoding: chunked\r\n"
    stranger = HEAD.replace(b"Authorization: Bearer sk-test-1\r\n", chunked)
    for head, trailer, status in (
        (stranger, b"Authorization: Bearer sk-test-1\r\n", b"401"),
        (HEAD + b"User-Agent: bad-agent\r\n" + chunked, b"User-Agent: good\r\n", b"403"),
        (HEAD + chunked, b"X-Request-Id: theirs\r\nAuthorization: Bearer sk-wrong\r\n", b"200"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        data = head + b"\r\n" + body + trailer + b"X-End: 1\r\n\r\n"
        writer.write(data[:cut])
        await asyncio.sleep(0.02)
        writer.write(data[cut:])
        answer = await asyncio.wait_for(reader.read(-1), 5)
        assert answer[9:12] == status, (trailer, answer)
        assert b"theirs" not in answer
        writer.close()


@pytest.mark.parametrize("line", [b"POST /v1/chat/completions", b"GET /v1/models"])
async def test_the_proxys_word_about_who_asks_is_the_last(stack: Any, line: bytes) -> None:
    """A client writes the header first; a proxy adds a line of its own."""
    stack.gateway.trusted_proxies = (ip_network("127.0.0.0/8"),)
    stack.config["keys"][0]["cidrs"] = ["203.0.113.0/24"]
    await stack.reconfigure()
    mine, real = b"X-Forwarded-For: 203.0.113.9\r\n", b"X-Forwarded-For: 198.51.100.1\r\n"
    odd = mine.replace(b"X", b"x", 1)
    for lines, status in ((real + odd, b"200"), (mine + real, b"403"), (mine + odd + real, b"403")):
        head = HEAD.replace(b"POST /v1/chat/completions", line) + lines + b"Connection: close\r\n"
        answer = await stack.raw(head + b"Content-Length: %d\r\n\r\n%b" % (len(CHAT), CHAT), timeout_s=10)
        assert answer[9:12] == status, (lines, answer)


async def test_trailers_are_bounded(stack: Any) -> None:
    trailers = b"".join(b"T%d: a\r\n" % number for number in range(100_000))
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    answer = await stack.raw(head + b"%x\r\n%b\r\n0\r\n" % (len(CHAT), CHAT) + trailers, timeout_s=10)
    assert answer.startswith(b"HTTP/1.1 431 ") and not any(engine.requests for engine in stack.engines)


@pytest.mark.parametrize("start", [b"5;a=", PART + b"5;a=", b"0;a=", PART + b"0\r\nX-End: ", b"0\r\n"])
@pytest.mark.parametrize("content_type", [b"application/json", b"multipart/form-data; boundary=b"])
async def test_what_stands_around_chunks_is_bounded(stack: Any, start: bytes, content_type: bytes) -> None:
    """A chunk's extension and a trailer's value do not end: the parser would gather them up to the limit of a body."""
    head = HEAD + b"Content-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % content_type
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(head + start)
    answered = asyncio.create_task(reader.read(-1))
    sent = 0
    with contextlib.suppress(ConnectionError):
        while not answered.done() and sent < 1 << 20:
            writer.write(b"T: a\r\n" * 500 if start == b"0\r\n" else b"a" * 3000)
            sent += 3000
            await writer.drain()
            await asyncio.sleep(0.001)
    answer = await asyncio.wait_for(answered, 5)
    assert answer.startswith(b"HTTP/1.1 431 ") and b"connection: close" in answer
    assert sent < 4 * stack.gateway.settings.max_header_bytes
    writer.close()


async def test_extensions_and_many_small_chunks_are_no_attack(stack: Any) -> None:
    """All framing together may be longer than a head, and so may a head that comes with them."""
    body = CHAT[:-1] + b" " * 3000 + CHAT[-1:]
    chunks = b"".join(b"1;ext=%b\r\n%c\r\n" % (b"e" * 20, byte) for byte in body)
    many = b"".join(b"X-%d: %b\r\n" % (n, b"a" * 200) for n in range(100))
    head = HEAD + many + b"Transfer-Encoding: chunked\r\n"
    data = head + b"\r\n" + chunks + b"0\r\n\r\n" + head + b"Connection: close\r\n\r\n" + chunks + b"0\r\nT: 1\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    for at in range(0, len(data), 7919):
        writer.write(data[at : at + 7919])
        await asyncio.sleep(0.001)
    answer = await asyncio.wait_for(reader.read(-1), 5)
    assert answer.count(b"HTTP/1.1 200 ") == 2, answer[:200]
    assert [json.loads(r.body) for e in stack.engines for r in e.requests] == [json.loads(CHAT)] * 2
    writer.close()


async def test_pipelined_requests_are_answered_in_order(stack: Any) -> None:
    bodies = [
        json.dumps({"model": "llama" if n % 3 else "nope", "messages": [], "n": n + 1}).encode() for n in range(60)
    ]
    mixed = b"".join(map(request, bodies)) + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await stack.raw(mixed, timeout_s=10)
    found = [answer[at + 9 : at + 12] for at in range(len(answer)) if answer.startswith(b"HTTP/1.1 ", at)]
    assert found == [b"200" if n % 3 else b"404" for n in range(60)] + [b"200"]
    await nothing_left(stack)


async def test_expect_100_continue(stack: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(CHAT))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(CHAT)
    assert (await reader.read(4096)).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_http_1_0_gets_a_plain_body(stack: Any) -> None:
    answer = await stack.raw(request(STREAM).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head and b"connection: close" in head
    assert body.startswith(b"data: ") and body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("first", [b"", b"Connection: keep-alive\r\n"])
@pytest.mark.parametrize("second", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_http_1_0_is_the_last_of_its_connection(stack: Any, first: bytes, second: bytes) -> None:
    """It cannot be told that the connection stays open, nor where a stream ends but by its end; what is sent behind it
    changes neither its answer nor its framing."""
    old = request(STREAM, first).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    behind = request(CHAT).replace(b"HTTP/1.1", second, 1)
    answer = await stack.raw(request(STREAM) + old + behind + behind[:-5], timeout_s=10)
    new_framing, old_framing, *more = answer.split(b"HTTP/1.1 200 ")[1:]
    assert not more and b"HTTP/1.1 " not in new_framing + old_framing
    assert b"chunked" in new_framing and new_framing.endswith(b"0\r\n\r\n")
    head, _, body = old_framing.partition(b"\r\n\r\n")
    assert b"chunked" not in head and b"connection: close" in head
    assert body.startswith(b"data: ") and body.endswith(b"data: [DONE]\n\n")
    await nothing_left(stack)


async def test_http_1_0_is_not_told_to_continue(stack: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    head = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Expect: 100-continue\r\n"
    writer.write(head + b"Content-Length: %d\r\n\r\n" % len(CHAT))
    await asyncio.sleep(0.02)
    writer.write(CHAT)
    assert (await reader.read(-1)).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_a_connection_may_change_its_mind_with_every_request(stack: Any) -> None:
    """Heads that repeat themselves are not parsed again: that must never show."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)

    async def ask(data: bytes) -> tuple[bytes, bytes]:
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return head[9:12], await reader.readexactly(length)

    bodies = [json.dumps({"model": "llama", "messages": [], "n": n}).encode() for n in (1, 22, 333, 4)]
    for body in bodies:
        assert (await ask(request(body)))[0] == b"200"
    assert (await ask(request(CHAT).replace(b"sk-test-1", b"sk-test-9")))[0] == b"401"
    assert (await ask(request(CHAT).replace(b"/chat/completions", b"/completions")))[0] == b"200"
    for body in bodies:
        assert (await ask(request(body)))[0] == b"200"
    assert (await ask(request(b'{"model":"nope"}')))[0] == b"404"
    writer.write(request(CHAT)[:-5])
    await asyncio.sleep(0.01)
    assert (await ask(CHAT[-5:]))[0] == b"200"
    assert (await ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == b"200"
    assert (await ask(request(CHAT)))[0] == b"200"
    seen = [r.body for e in stack.engines for r in e.requests if r.path.endswith("/chat/completions")]
    assert sorted(seen) == sorted([*bodies, *bodies, CHAT, CHAT])
    writer.write(b"P")
    await asyncio.sleep(0.01)
    writer.write(request(CHAT))
    assert (await reader.read(4096)).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await nothing_left(stack)


async def test_a_key_that_is_withdrawn_is_refused_on_an_open_connection(stack: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    for status in (b"200", b"200", b"401"):
        if status == b"401":
            await stack.reconfigure(keys=[])
        writer.write(request(CHAT))
        assert (await reader.read(65536))[9:12] == status
    writer.close()


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


@pytest.mark.parametrize("cut", [0, len(HEAD) + 20, -1])
async def test_an_offer_to_upgrade_is_ignored(stack: Any, cut: int) -> None:
    """Java's HttpClient offers HTTP/2 with its first request."""
    data = request(CHAT, UPGRADE)
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(data[:cut])
    await asyncio.sleep(0.01)
    writer.write(data[cut:] + request(CHAT, UPGRADE) + request(CHAT, b"Connection: close\r\n"))
    answer = await asyncio.wait_for(reader.read(-1), 5)
    assert answer.count(b"HTTP/1.1 200 ") == answer.count(b"HTTP/1.1 ") == 3
    assert [r.body for e in stack.engines for r in e.requests] == [CHAT] * 3
    assert not any("upgrade" in r.headers for e in stack.engines for r in e.requests)
    writer.close()
    await nothing_left(stack)


async def test_a_flood_of_offers_to_upgrade(stack: Any) -> None:
    answer = await stack.raw(request(b"{}", UPGRADE) * 1_500 + b"GET /health HTTP/1.0\r\n\r\n", timeout_s=20)
    assert answer.count(b"HTTP/1.1 400 ") == 1_500 and answer.count(b"HTTP/1.1 200 ") == 1


async def test_tunnels_are_refused(stack: Any) -> None:
    answer = await stack.raw(b"CONNECT 10.0.0.1:22 HTTP/1.1\r\nHost: 10.0.0.1:22\r\n\r\nSSH-2.0-x\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1 4") == 1


async def test_slow_heads_and_slow_bodies_time_out(stack: Any) -> None:
    for part in (HEAD, HEAD + b"Content-Length: 100\r\n\r\n{"):
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write(part)
        await asyncio.sleep(0.05)
        for front in list(stack.hot.fronts):
            front.sweep(time.monotonic() + 1000)
        assert (await reader.read(4096)).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_idle_connections_are_closed(stack: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    await asyncio.sleep(0.05)
    for front in list(stack.hot.fronts):
        front.sweep(time.monotonic() + 1000)
    assert await reader.read(10) == b""
    writer.close()


async def test_any_number_of_interim_answers_is_read_over(stack: Any) -> None:
    async def speak(engine: Any, request: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 2_000)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    for engine in stack.engines:
        engine.script = speak
    assert (await stack.chat()).content == b"{}"


@pytest.mark.parametrize(
    "garbage",
    [
        b"NOT HTTP AT ALL\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nInjected: yes\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",  # would be waited for, if half a head were one
        b"SSH-2.0-OpenSSH",
    ],
)
async def test_garbage_from_a_deployment_never_reaches_the_client(stack: Any, garbage: bytes) -> None:
    async def speak(engine: Any, request: Any, writer: Any) -> None:
        writer.write(garbage)

    for engine in stack.engines:
        engine.script = speak
    response = await stack.chat()
    assert response.status_code == 502 and response.json()["error"]["code"] == "upstream_invalid"
    await nothing_left(stack)


@pytest.mark.parametrize(
    "chunk", [b"zz\r\nabc\r\n", b"3\r\nabcdef\r\n", b"3;ext=1\r\nabc\r\n", b"fffffffff\r\n", b"3\nabc\n"]
)
async def test_broken_chunks_cut_the_answer(stack: Any, chunk: bytes) -> None:
    async def speak(engine: Any, request: Any, writer: Any) -> None:
        engine.begin_stream(writer)
        engine.event(writer, {"choices": [{"delta": {"content": "x"}}]})
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(chunk)
        await writer.drain()

    for engine in stack.engines:
        engine.script = speak
    answer = await stack.raw(request(STREAM))
    assert b'"content":"x"' in answer and not answer.endswith(b"0\r\n\r\n") and b"abcdef" not in answer
    [row] = await stack.rows(1)
    assert row["outcome"] == "cut"
    await nothing_left(stack)


async def test_a_deployment_that_says_more_than_it_should_is_not_used_again(stack: Any) -> None:
    async def surplus(engine: Any, request: Any, writer: Any) -> None:
        engine.answer(writer, engine.completion(request))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsmuggle")

    for engine in stack.engines:
        engine.script = surplus
    for _ in range(6):
        response = await stack.chat()
        assert response.status_code == 200 and "smuggle" not in response.text


async def test_stalled_deployments_time_out(stack: Any) -> None:
    stalled = asyncio.Event()

    async def stall(engine: Any, request: Any, writer: Any) -> None:
        stalled.set()
        await asyncio.sleep(30)

    for engine in stack.engines:
        engine.script = stall
    asking = asyncio.create_task(stack.chat())
    for _ in range(3):
        await asyncio.wait_for(stalled.wait(), 5)
        stalled.clear()
        await asyncio.sleep(0.05)
        stack.hot.tick += 1000
        for front in list(stack.hot.fronts):
            front.sweep(time.monotonic())
        if asking.done():
            break
        if sum(len(e.requests) for e in stack.engines) >= 2 and not asking.done():
            await asyncio.sleep(0.05)
            stack.hot.tick += 1000
            for front in list(stack.hot.fronts):
                front.sweep(time.monotonic())
            break
    response = await asyncio.wait_for(asking, 5)
    assert response.status_code == 504 and response.json()["error"]["code"] == "upstream_timeout"
    await nothing_left(stack)


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_without_blame(stack: Any) -> None:
    async def once(engine: Any, request: Any, writer: Any) -> None:
        engine.answer(writer, engine.completion(request))
        await writer.drain()
        engine.closing = writer

    for engine in stack.engines:
        engine.script = once
    for _ in range(4):
        assert (await stack.chat()).status_code == 200
        for engine in stack.engines:
            if hasattr(engine, "closing"):
                engine.closing.transport.abort()
    deployments = stack.gateway.policy.snapshot.deployments.values()
    assert all(deployment.failures == deployment.silences == 0 for deployment in deployments)


class ResetMeanwhile:
    """A transport whose connection was reset just before its end is written."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")


async def test_a_client_that_is_gone_before_its_answer_can_be_closed(stack: Any) -> None:
    """The connection may be reset between the answer to half a request and its orderly end."""
    _, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(HEAD)
    await asyncio.sleep(0.05)
    [front] = stack.hot.fronts
    front.transport = ResetMeanwhile(front.transport)
    front.sweep(time.monotonic() + 1000)
    assert front._lingers
    writer.transport.abort()


async def test_clients_that_leave_at_any_moment_leave_nothing_behind(stack: Any) -> None:
    for engine in stack.engines:
        engine.tokens, engine.pause_s = 20, 0.002
    for cut in (1, 30, 90, len(request(STREAM)) - 1, len(request(STREAM))):
        for wait_s in (0, 0.01):
            _, writer = await asyncio.open_connection("127.0.0.1", stack.port)
            writer.write(request(STREAM)[:cut])
            await writer.drain()
            await asyncio.sleep(wait_s)
            writer.transport.abort()
    await nothing_left(stack)
    for _ in range(100):
        if not stack.hot.fronts:
            break
        await asyncio.sleep(0.01)
    assert not stack.hot.fronts


async def test_a_client_that_closes_its_sending_side_counts_as_gone(stack: Any) -> None:
    for engine in stack.engines:
        engine.tokens, engine.pause_s = 500, 0.01
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(request(STREAM))
    await reader.readuntil(b"data:")
    writer.write_eof()
    [row] = await stack.rows(1)
    assert row["outcome"] == "cancelled" and sum(engine.chunks_sent for engine in stack.engines) < 500
    await nothing_left(stack)
    writer.close()


async def test_an_engine_that_closes_its_sending_side_cuts_the_answer(stack: Any) -> None:
    async def half(engine: Any, request: Any, writer: Any) -> None:
        engine.begin_stream(writer)
        engine.event(writer, {"choices": [{"delta": {"content": "x"}}]})
        await writer.drain()
        writer.write_eof()
        await asyncio.sleep(5)

    for engine in stack.engines:
        engine.script = half
    answer = await stack.raw(request(STREAM))
    assert b'"content":"x"' in answer and not answer.endswith(b"0\r\n\r\n")
    [row] = await stack.rows(1)
    assert row["outcome"] == "cut"
    await nothing_left(stack)


async def test_a_flood_of_pipelined_requests_is_held_back(stack: Any) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(engine: Any, request: Any, writer: Any) -> None:
        begun.set()
        await go_on.wait()
        engine.answer(writer, engine.completion(request))

    for engine in stack.engines:
        engine.script = wait
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(request(CHAT) * 100_000)
    await begun.wait()
    [front] = stack.hot.fronts
    sizes = [-1]
    while (left := writer.transport.get_write_buffer_size()) != sizes[-1]:
        sizes.append(left)
        await asyncio.sleep(0.1)
    assert left > 10 << 20, "most of it is still the client's"
    assert len(front._queue) < 5000 and not front.transport.is_reading()
    go_on.set()
    for _ in range(20):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await reader.readuntil(b"}}")
    writer.transport.abort()
    await nothing_left(stack)


async def test_a_slow_reader_slows_the_engine_down(stack: Any) -> None:
    blocks = 400

    async def flood(engine: Any, request: Any, writer: Any) -> None:
        engine.begin_stream(writer)
        for _ in range(blocks):
            engine.chunk(writer, b"data: " + b"x" * 65536 + b"\n\n")
            engine.chunks_sent += 1
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    for engine in stack.engines:
        engine.script = flood
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port, limit=1024)
    writer.write(request(STREAM))
    await asyncio.sleep(0.4)
    assert 0 < sum(engine.chunks_sent for engine in stack.engines) < blocks, "the engine must be held back"
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        received = received[-10:] + await reader.read(1 << 20)
    writer.close()
    assert sum(engine.chunks_sent for engine in stack.engines) == blocks


async def test_the_first_token_is_not_delayed_by_nagle(stack: Any) -> None:
    async def two_writes(engine: Any, request: Any, writer: Any) -> None:
        engine.begin_stream(writer)
        await writer.drain()
        for number in range(10):
            engine.event(writer, {"choices": [{"delta": {"content": str(number)}}]})
            await writer.drain()
            await asyncio.sleep(0.002)
        writer.write(b"0\r\n\r\n")

    for engine in stack.engines:
        engine.script = two_writes
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(request(STREAM))
    await reader.readuntil(b"\r\n\r\n")
    [front] = stack.hot.fronts
    [upstream] = [front._job.upstream]
    for transport in (front.transport, upstream.transport):
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    await reader.readuntil(b"0\r\n\r\n")
    writer.close()


async def test_a_token_does_not_wait_for_the_one_before_to_be_acknowledged(stack: Any) -> None:
    """Nagle's algorithm would hold every token back until the client's delayed acknowledgement (40 ms) of the last."""
    steps, read = 30, asyncio.Semaphore(0)

    async def step_by_step(engine: Any, request: Any, writer: Any) -> None:
        engine.begin_stream(writer)
        for number in range(steps):
            engine.event(writer, {"choices": [{"delta": {"content": str(number)}}]})
            await writer.drain()
            await read.acquire()
            engine.event(writer, {"choices": [{"delta": {"content": "and"}}]})  # while the last is not acknowledged
            await writer.drain()
            await read.acquire()
        writer.write(b"0\r\n\r\n")

    for engine in stack.engines:
        engine.script = step_by_step
    took_s = []
    for _ in range(3):  # the fastest counts: the machine may be busy
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write(request(STREAM))
        await reader.readuntil(b"\r\n\r\n")
        client: socket.socket = writer.get_extra_info("socket")
        begun_s = time.monotonic()
        for _ in range(2 * steps):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)  # acknowledge late, as busy clients do
            await reader.readuntil(b"\n\n\r\n")
            read.release()
        took_s.append(time.monotonic() - begun_s)
        writer.transport.abort()
    assert min(took_s) < steps * 0.02, took_s


def fragments(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(marks)]


MUTATIONS = st.lists(st.tuples(st.integers(0, 600), st.binary(max_size=6)), max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations=MUTATIONS, cuts=st.lists(st.integers(0, 600), max_size=5), tail=st.binary(max_size=60))
async def test_fuzz_the_front(stack: Any, mutations: list[tuple[int, bytes]], cuts: list[int], tail: bytes) -> None:
    """Mutated requests in random fragments: the gateway answers or closes, and always serves the next client."""
    data = bytearray(request(CHAT) + request(STREAM))
    for at, replacement in mutations:
        data[at % len(data) : at % len(data) + len(replacement)] = replacement
    _, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    with contextlib.suppress(ConnectionError):
        for fragment in fragments(bytes(data) + tail, cuts):
            writer.write(fragment)
            await writer.drain()
    writer.close()
    assert (await stack.client.get("/health")).status_code == 200
