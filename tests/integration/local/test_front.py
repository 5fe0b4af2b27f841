"""The front between real servers on loopback."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from foundry_local.front import Front, Routes, Upstream
from foundry_local.serve import HOST, Server, bind, free_port


class Echo:
    """Answers with what it got; ``/stream`` sends a chunk whenever the test lets it, ``/hang`` never answers."""

    def __init__(self, name: str) -> None:
        self.name, self.go, self.left = name, threading.Semaphore(0), threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await self._answer(scope, body, receive, send)

    async def _answer(self, scope: Any, body: bytes, receive: Any, send: Any) -> None:
        if scope["path"].endswith("/hang"):
            await receive()
            self.left.set()
            return
        shown = [(b"x-upstream", self.name.encode()), (b"x-path", scope["raw_path"] + b"?" + scope["query_string"])]
        shown += [(b"x-got-" + n, v) for n, v in scope["headers"]]
        await send({"type": "http.response.start", "status": 201, "headers": shown})
        if scope["path"].endswith("/stream"):
            for number in range(3):
                await asyncio.to_thread(self.go.acquire)
                await send({"type": "http.response.body", "body": b"chunk %d\n" % number, "more_body": True})
        elif scope["path"].endswith("/cut"):
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError("breaks off")
        await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def api() -> Echo:
    return Echo("api")


@pytest.fixture(scope="module")
def gateway() -> Echo:
    return Echo("gateway")


@pytest.fixture(scope="module")
def front(api: Echo, gateway: Echo) -> Iterator[str]:
    servers = [Server(app, bind(0), app.name) for app in (api, gateway)]
    for server in servers:
        server.start()
    routes = {"v1": Upstream(HOST, servers[1].port, "the gateway", body_bytes=2**26, answer_s=None)}
    default = Upstream(HOST, servers[0].port, "the API", prefix="/_api/x1", body_bytes=1000, answer_s=0.3)
    server = Front(Routes(routes, default), bind(0))
    server.start()
    yield server.url
    for running in (server, *servers):
        running.stop()


def test_routes_by_the_first_segment(front: str) -> None:
    api = httpx.get(f"{front}/projects/p%2F1/x?a=1&a=%20")
    assert (api.status_code, api.headers["x-upstream"]) == (201, "api")
    assert api.headers["x-path"] == "/_api/x1/projects/p%2F1/x?a=1&a=%20"
    assert httpx.get(f"{front}/v1/models").headers["x-upstream"] == "gateway"
    assert httpx.get(f"{front}/v1models").headers["x-upstream"] == "api"


def test_cannot_be_talked_out_of_the_api(front: str) -> None:
    with socket.create_connection(("127.0.0.1", int(front.rpartition(":")[2]))) as raw:
        raw.sendall(b"GET /../../_ministack/reset HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    assert b"x-path: /_api/x1/../../_ministack/reset" in answer


def test_passes_bodies_and_headers_and_says_who_asked(front: str) -> None:
    headers = {"x-forwarded-for": "9.9.9.9", "x-own": "kept"}
    answer = httpx.post(f"{front}/projects", content=b"\x00body", headers=headers)
    assert answer.content == b"\x00body"
    assert answer.headers["x-got-x-forwarded-for"] == "127.0.0.1"
    assert answer.headers["x-got-x-forwarded-host"] == front.partition("://")[2]
    assert answer.headers["x-got-x-own"] == "kept"


def test_answers_for_itself(front: str) -> None:
    assert httpx.get(f"{front}/healthz").json() == {"status": "ok"}


def test_a_stream_arrives_piece_by_piece(front: str, gateway: Echo) -> None:
    with httpx.stream("POST", f"{front}/v1/stream", content=b"end") as answer:
        pieces = answer.iter_raw()
        for number in range(3):
            gateway.go.release()
            assert next(pieces) == b"chunk %d\n" % number
        assert next(pieces) == b"end"


def test_a_client_that_leaves_is_reported_upstream(front: str, gateway: Echo) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{front}/v1/hang", timeout=0.2)
    assert gateway.left.wait(5)


def test_an_answer_that_breaks_off_is_not_made_whole(front: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{front}/v1/cut")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_a_problem(front: str, chunked: bool) -> None:
    content: Any = iter([b"x" * 600] * 2) if chunked else b"x" * 1200
    answer = httpx.post(f"{front}/projects", content=content)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "body_too_large"


def test_an_api_that_does_not_answer_is_a_problem(front: str) -> None:
    started = time.monotonic()
    answer = httpx.get(f"{front}/hang")
    assert (answer.status_code, answer.json()["code"]) == (503, "upstream_timeout")
    assert time.monotonic() - started < 5


def test_an_upstream_that_is_down_is_a_problem() -> None:
    server = Front(Routes({}, Upstream(HOST, free_port(), "the API")), bind(0))
    server.start()
    answer = httpx.get(f"{server.url}/projects")
    server.stop()
    assert (answer.status_code, answer.json()["code"]) == (503, "upstream_unreachable")
    assert answer.json()["next_action"] == "foundry status"


@pytest.mark.parametrize(
    "headers",
    [{"host": "evil.example"}, {"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}],
)
def test_pages_of_other_sites_are_refused(front: str, headers: dict[str, str]) -> None:
    assert httpx.get(f"{front}/projects", headers=headers).status_code == 403


def exchange(front: str, sent: bytes) -> bytes:
    """Everything that comes back on one connection."""
    with socket.create_connection(("127.0.0.1", int(front.rpartition(":")[2])), timeout=5) as raw:
        raw.sendall(sent)
        return b"".join(iter(lambda: raw.recv(65536), b""))


HEAD = b"HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / " + HEAD + b"Content-Length: -1\r\n\r\n",
        b"POST / " + HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        b"GET / " + HEAD + b"Bad Header: x\r\n\r\n",
        b"GET / " + HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_malformed_requests_are_refused(front: str, sent: bytes) -> None:
    assert exchange(front, sent).startswith(b"HTTP/1.1 400 ")


def test_an_endless_head_is_refused(front: str) -> None:
    assert b"head_too_large" in exchange(front, b"GET / " + HEAD + b"X-Long: x\r\n" * 20_000)


def test_one_connection_serves_api_and_gateway_in_turn(front: str) -> None:
    with httpx.Client(base_url=front) as client:
        seen = [client.get(path).headers["x-upstream"] for path in ("/a", "/v1/b", "/c", "/v1/d", "/healthz2")]
    assert seen == ["api", "gateway", "api", "gateway", "api"]


def test_a_client_that_waits_for_permission_gets_it(front: str) -> None:
    request = b"POST /v1/x " + HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(front.rpartition(":")[2])), timeout=5) as raw:
        raw.sendall(request)
        assert raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"ok")
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 201 ") and b"ok" in answer


def test_a_slow_reader_does_not_fill_memory(front: str, gateway: Echo) -> None:
    body = b"x" * (20 * 1024 * 1024)
    with httpx.stream("POST", f"{front}/v1/echo", content=body, timeout=30) as answer:
        time.sleep(0.2)
        assert sum(len(piece) for piece in answer.iter_raw()) == len(body)
