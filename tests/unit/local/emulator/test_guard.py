from typing import Any

import httpx
import pytest
from foundry_local.emulator.guard import Guard, is_local


@pytest.mark.parametrize(
    "authority", ["127.0.0.1", "127.0.0.1:4601", "localhost", "LOCALHOST:80", "[::1]:4601", "[::1]"]
)
def test_names_of_this_machine(authority: str) -> None:
    assert is_local(authority)


@pytest.mark.parametrize(
    "authority",
    ["", "evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "127.0.0.1:80:evil", "null", "0.0.0.0"],
)
def test_other_names(authority: str) -> None:
    assert not is_local(authority)


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:1"}, 200),
        ({"host": "localhost", "origin": "http://localhost:4600"}, 200),
        ({"host": "localhost", "origin": "https://evil.example"}, 403),
        ({"host": "localhost", "origin": "null"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "localhost", "sec-fetch-site": "none"}, 200),
        ({"host": "localhost", "sec-fetch-site": "same-origin"}, 200),
        ({"host": "localhost", "sec-fetch-site": "cross-site"}, 403),
        ({"host": "localhost", "sec-fetch-site": "same-site"}, 403),
        ({"host": "127.0.0.1", "origin": "http://localhost:4700", "sec-fetch-site": "cross-site"}, 200),
        ({"host": "evil.example", "origin": "http://localhost:4700", "sec-fetch-site": "same-origin"}, 403),
    ],
)
async def test_lets_only_this_machine_in(headers: dict[str, str], status: int) -> None:
    requests: list[None] = []
    guard = Guard(app, lambda: requests.append(None))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://x") as client:  # type: ignore[arg-type]
        answer = await client.get("/", headers=headers)
    assert answer.status_code == status
    assert len(requests) == (1 if status == 200 else 0)
    if status == 403:
        assert answer.headers["content-type"] == "application/problem+json"
