"""OpenAI's files API through either form of the gateway, with the real control plane behind it."""

import asyncio

import httpx
import pytest

from ..conftest import until
from .control_plane import Plane

HOT = pytest.mark.parametrize("form", ["hot"])  # what both forms have in common
LINES = b'{"custom_id": "a"}\n{"custom_id": "b"}\n'


async def put(http: httpx.AsyncClient, content: bytes = LINES, name: str = "in.jsonl", **form: str) -> httpx.Response:
    return await http.post("/v1/files", data={"purpose": "batch", **form}, files={"file": (name, content)})


async def test_a_file_comes_back_as_it_was_sent(http: httpx.AsyncClient) -> None:
    content = LINES * 60_000  # over two MiB: it comes in many pieces
    made = (await put(http, content)).raise_for_status().json()
    assert (made["object"], made["bytes"], made["filename"]) == ("file", len(content), "in.jsonl")
    assert (await http.get(f"/v1/files/{made['id']}")).json() == made
    assert (await http.get("/v1/files")).json()["data"] == [made]
    back = await http.get(f"/v1/files/{made['id']}/content")
    assert back.content == content


@HOT
async def test_deleting_takes_it_away(http: httpx.AsyncClient, plane: Plane) -> None:
    made = (await put(http)).json()
    assert len(plane.objects()) == 1
    gone = (await http.delete(f"/v1/files/{made['id']}")).raise_for_status().json()
    assert gone == {"id": made["id"], "object": "file", "deleted": True} and plane.objects() == []
    for answer in (await http.get(f"/v1/files/{made['id']}"), await http.get(f"/v1/files/{made['id']}/content")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@HOT
async def test_pages(http: httpx.AsyncClient) -> None:
    ids = [(await put(http)).json()["id"] for _ in range(3)]
    first = (await http.get("/v1/files", params={"limit": 2})).json()
    rest = (await http.get("/v1/files", params={"limit": 2, "after": first["last_id"]})).json()
    assert {one["id"] for one in first["data"] + rest["data"]} == set(ids) and len(rest["data"]) == 1
    assert (await http.get("/v1/files", params={"limit": 2000})).status_code == 200
    assert (await http.get("/v1/files", params={"purpose": "batch_output"})).json()["data"] == []
    for wrong in ({"limit": "0"}, {"limit": "²"}, {"limit": "1" * 5000}, {"after": "../../x"}):
        answer = await http.get("/v1/files", params=wrong)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), wrong


async def test_the_project_is_that_of_the_key(http: httpx.AsyncClient, plane: Plane) -> None:
    made = (await put(http)).json()
    unknown = {"authorization": "Bearer fk-unknown", "x-project-id": plane.project}
    assert (await http.get("/v1/files", headers=unknown)).status_code == 401
    form = {"data": {"purpose": "batch"}, "files": {"file": ("a", LINES * 1000)}}
    refused = await http.post("/v1/files", headers=unknown, **form)  # type: ignore[arg-type]
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert len(plane.objects()) == 1 and made["id"] in plane.objects()[0]


@HOT
async def test_another_projects_file_does_not_exist(stranger: str, http: httpx.AsyncClient) -> None:
    made = (await put(http)).json()
    theirs = {"authorization": f"Bearer {stranger}"}
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = await http.request(method, f"/v1/files/{made['id']}{path}", headers=theirs)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert (await http.get("/v1/files", headers=theirs)).json()["data"] == []


@HOT
async def test_names_are_labels(http: httpx.AsyncClient, plane: Plane) -> None:
    names = {"../../etc/passwd": "passwd", "c:/x/a.jsonl": "a.jsonl", "é.jsonl": "é.jsonl", "x/": "file.jsonl"}
    for name, kept in names.items():
        made = (await put(http, name=name)).raise_for_status().json()
        assert made["filename"] == kept
        assert f"{plane.project}/{made['id']}/input.jsonl" in plane.objects()


FILE = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\na\r\n'


async def test_what_is_no_such_form_is_refused(http: httpx.AsyncClient, plane: Plane) -> None:
    form = "multipart/form-data; boundary=x"
    no_file = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\na\r\n--x--'
    for content_type, body in (
        ("application/json", b"{}"), ("multipart/form-data", b""), (form, b"--x--"), (form, b"--y\r\n\r\n"),
        (form, no_file), (form, FILE + FILE + b"--x--"), (form, FILE + b"--x"),
    ):  # fmt: skip
        answer = await http.post("/v1/files", content=body, headers={"content-type": content_type})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), body
    assert plane.objects() == []


@HOT
async def test_who_asks_first_is_told_to_send(http: httpx.AsyncClient, plane: Plane) -> None:
    """As curl does with a large file; a wrong key is answered before the file has come."""
    for key, told in ((plane.secret, b"HTTP/1.1 100 Continue"), ("fk-wrong", b"HTTP/1.1 401 ")):
        reader, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port)
        head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 1000000\r\n"
        form = "Content-Type: multipart/form-data; boundary=x\r\nExpect: 100-continue\r\n\r\n"
        writer.write((head + form).encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(told):
            answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(told)
        writer.close()
    assert plane.objects() == []


@HOT
async def test_who_sends_slowly_keeps_no_other_project_out(
    stranger: str, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []

    async def slowly(request: object, spool: object) -> str:
        begun.append(request)
        return str(await asyncio.Future())

    monkeypatch.setattr("gateway.files.receive", slowly)
    theirs = {"authorization": f"Bearer {stranger}"}
    files = {"file": ("a", LINES)}
    async with asyncio.TaskGroup() as sending:
        uploads = [sending.create_task(put(http)) for _ in range(2)]
        await until(lambda: len(begun) == 2)
        refused = await put(http)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        uploads.append(sending.create_task(http.post("/v1/files", files=files, headers=theirs)))
        await until(lambda: len(begun) == 3)
        for upload in uploads:
            upload.cancel()


@HOT
async def test_a_file_that_does_not_come_to_its_end_is_given_up(
    http: httpx.AsyncClient, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.files.UPLOAD_S", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port)
    head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {plane.secret}\r\nContent-Length: 1000000\r\n"
    writer.write(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode() + FILE)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408 ")
    writer.close()


@HOT
async def test_where_a_file_is_does_not_expire_while_a_client_reads(
    http: httpx.AsyncClient, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.files.FRESH_S", -1)
    file_id = plane.made_of(b"one\n", b"two\n")
    assert (await http.get(f"/v1/files/{file_id}/content")).content == b"one\ntwo\n"
    asked = [seen for seen in plane.transport.seen if seen.endswith(f"/{file_id}/content")]
    assert len(asked) == 3  # at first, and before each part


@HOT
async def test_only_batches_have_files_and_none_is_empty(http: httpx.AsyncClient) -> None:
    refused = await put(http, purpose="fine-tune")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "purpose")
    assert (await put(http, b"")).json()["error"]["param"] == "file"


async def test_a_file_that_is_too_large_is_refused_while_it_comes(
    http: httpx.AsyncClient, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.files.MAX_FILE_BYTES", 1000)
    answer = await put(http, b"x" * 1001)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert plane.objects() == []


async def test_without_the_control_plane_it_is_said_so(http: httpx.AsyncClient, plane: Plane) -> None:
    plane.transport.away = True
    for answer in (await put(http), await http.get("/v1/files"), await http.get("/v1/files/file_1/content")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")


@HOT
async def test_ids_are_never_part_of_another_path(http: httpx.AsyncClient, plane: Plane) -> None:
    plane.transport.seen.clear()
    for id_ in ("..", "%2e%2e", "a%2fb", "a" * 129, "a%00", "%3Fx"):
        for method in ("GET", "DELETE"):
            answer = await http.request(method, f"/v1/files/{id_}")
            assert answer.status_code in (404, 405), id_
    assert plane.transport.seen == []
