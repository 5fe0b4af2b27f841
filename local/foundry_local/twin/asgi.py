"""The little that raw ASGI needs: bodies in, answers out, and noticing that the client has left."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

from starlette.types import Message, Receive, Send

from foundry_local.twin.openai import RequestError

MAX_BODY_BYTES = 32 * 1024 * 1024
SOURCE = (b"x-foundry-source", b"twin")
JSON = [(b"content-type", b"application/json"), SOURCE]
TEXT = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8"), SOURCE]
STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), SOURCE]


class ClientGone(Exception):
    """The client closed the connection before it was answered."""


async def until_gone(receive: Receive, answer: Awaitable[None]) -> None:
    """Run `answer`, and cancel it as soon as the client disconnects."""
    task = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        for item in (task, gone):
            item.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await item


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(receive: Receive) -> bytes:
    """Raises: RequestError 413, ClientGone."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise RequestError("Request body too large", 413, "RequestTooLarge")
        if not message.get("more_body"):
            return bytes(body)


async def respond(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] = JSON) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def locked(send: Send) -> Send:
    """`send` for several writers at once: one message after the other."""
    lock = asyncio.Lock()

    async def guarded(message: Message) -> None:
        async with lock:
            await send(message)

    return guarded
