"""OpenAI's files API, for batches: bytes pass through to object storage, records are the control plane's."""

import asyncio
import re
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import IO, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway.control import decode
from gateway.core import wire
from gateway.core.multipart import FilePart, FormReader, is_form
from gateway.core.problems import Rejected
from gateway.runtime import Gateway
from gateway.side_upload import MAX_FILE_BYTES
from gateway.stored import answer, id_in, key_of, of_project, page_of, told

UPLOADS_AT_A_TIME: Final = 4  # per process: each has its file on the spool's disk
UPLOADS_OF_A_PROJECT: Final = 2  # of those: who sends slowly keeps nobody else out
UPLOAD_S = 900.0  # for all of a file
FRESH_S = 600.0  # the control plane's URLs are valid for 15 minutes, and a client may read slowly
SEPARATORS: Final = re.compile(r"[/\\]")
TOO_LARGE: Final = f"A file may have {MAX_FILE_BYTES >> 20} MiB. Divide it, and make a batch of each part."
WRONG_PURPOSE: Final = "Files are kept for batches only: send purpose=batch."


class FileFacts(msgspec.Struct, frozen=True):
    id: str
    bytes: int


class NewFile(msgspec.Struct, frozen=True):
    file: FileFacts
    upload: wire.Upload


class FileContent(msgspec.Struct, frozen=True):
    file: FileFacts
    urls: list[str]


class Files:
    """The routes of /v1/files."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._control = gateway.control
        self._uploads = Counter[str]()  # by project

    def routes(self) -> list[Route]:
        return [
            Route("/v1/files", self.create, methods=["POST"]),
            Route("/v1/files", self.page, methods=["GET"]),
            Route("/v1/files/{file_id}", self.get, methods=["GET"]),
            Route("/v1/files/{file_id}", self.delete, methods=["DELETE"]),
            Route("/v1/files/{file_id}/content", self.content, methods=["GET"]),
        ]

    async def create(self, request: Request) -> Response:
        project_id = key_of(request).project_id
        if self._uploads.total() >= UPLOADS_AT_A_TIME or self._uploads[project_id] >= UPLOADS_OF_A_PROJECT:
            raise Rejected("rate_limit_exceeded", "Too many files come at once. Try again shortly.", retry_after_s=5)
        self._uploads[project_id] += 1
        try:
            with told(), tempfile.TemporaryFile(dir=self._gateway.directory) as spool:
                return await self._keep(request, spool)
        finally:
            self._uploads[project_id] -= 1

    async def _keep(self, request: Request, spool: IO[bytes]) -> Response:
        try:
            async with asyncio.timeout(UPLOAD_S):
                name = await receive(request, spool)
        except TimeoutError:
            raise Rejected("request_timeout") from None
        order = {"key_id": key_of(request).id, "filename": name, "bytes": spool.tell()}
        path = of_project(request, "/files")
        made = decode(await self._control.ask("POST", path, order), NewFile)
        await self._control.put(made.upload, spool)
        return answer(await self._control.ask("POST", f"{path}/{made.file.id}/arrived"))

    async def page(self, request: Request) -> Response:
        asked = request.query_params
        query = page_of(request) | {"oldest_first": str(asked.get("order") == "asc").lower()}
        query |= {"purpose": asked["purpose"]} if "purpose" in asked else {}
        with told():
            return answer(await self._control.ask("GET", of_project(request, "/files"), query=query))

    async def get(self, request: Request) -> Response:
        with told():
            return answer(await self._control.ask("GET", self._path(request)))

    async def delete(self, request: Request) -> Response:
        with told():
            return answer(await self._control.ask("DELETE", self._path(request)))

    async def content(self, request: Request) -> Response:
        path = f"{self._path(request)}/content"
        with told():
            found = await self._found(path)
            pieces = self._bytes(path, found.urls)
            first = await anext(pieces, b"")  # what is not there must not begin as an answer
        headers = {"content-length": str(found.file.bytes)}
        return StreamingResponse(_after(first, pieces), 200, headers, "application/jsonl")

    async def _found(self, path: str) -> FileContent:
        return decode(await self._control.ask("GET", path), FileContent)

    async def _bytes(self, path: str, urls: list[str]) -> AsyncIterator[bytes]:
        asked_s = time.monotonic()
        for number in range(len(urls)):
            if time.monotonic() - asked_s > FRESH_S:
                urls, asked_s = (await self._found(path)).urls, time.monotonic()
            async for piece in self._control.get(urls[number]):
                yield piece

    def _path(self, request: Request) -> str:
        return of_project(request, f"/files/{id_in(request, 'file_id')}")


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


async def receive(request: Request, spool: IO[bytes]) -> str:
    """Read the form; its file goes into ``spool``. Returns the file's name. Raises Rejected."""
    content_type = request.headers.get("content-type", "").encode("latin-1")
    if not is_form(content_type):
        raise Rejected("invalid_request", "Send the file as multipart/form-data, with the fields purpose and file.")

    def write(data: bytes) -> None:
        spool.write(data)
        if spool.tell() > MAX_FILE_BYTES:
            raise Rejected("body_too_large", TOO_LARGE)

    file = FilePart(write)
    reader = FormReader(content_type, (b"purpose",), file)
    async for piece in request.stream():
        reader.feed(piece)
    if reader.value("purpose") != b"batch":
        raise Rejected("invalid_request", WRONG_PURPOSE, param="purpose")
    if not reader.complete or spool.tell() == 0:
        raise Rejected("invalid_request", "The form has no file, or an empty one.", param="file")
    return label(file.name)


def label(sent: bytes) -> str:
    """A file's name without folders and without what cannot be seen."""
    last = SEPARATORS.split(sent.decode("utf-8", "replace"))[-1]
    return "".join(char for char in last if char.isprintable())[:255] or "file.jsonl"
