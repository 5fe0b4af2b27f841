"""Files that gateways keep for clients: records in the app table, bytes in object storage by presigned URLs."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from foundry_core import aws
from foundry_core.clock import fixed, now_ms

Call = Callable[..., Any]
DAY_MS = 24 * 3_600_000


@pytest.fixture
def key(call: Call, project: str) -> str:
    return str(call("POST", f"/projects/{project}/keys", {"name": "one"}).ok(201)["id"])


@pytest.fixture
def files(project: str) -> str:
    return f"/gateway/projects/{project}/files"


def object_key(url: str) -> str:
    return urlsplit(url).path.lstrip("/").removeprefix("foundry-test-metering/")


@pytest.fixture
def put(gateway: Call, files: str, key: str, bucket: str) -> Callable[..., str]:
    """``put(b"...")``: a file whose bytes have arrived; its id."""

    def put(content: bytes = b"{}\n", name: str = "in.jsonl") -> str:
        order = {"key_id": key, "filename": name, "bytes": len(content)}
        made = gateway("POST", files, order).ok(201)
        aws.client("s3").put_object(Bucket=bucket, Key=object_key(made["upload"]["url"]), Body=content)
        return str(gateway("POST", f"{files}/{made['file']['id']}/arrived").ok()["id"])

    return put


def test_a_file_is_seen_once_its_bytes_are_there(gateway: Call, files: str, key: str, bucket: str) -> None:
    order = {"key_id": key, "filename": "in.jsonl", "bytes": 3}
    made = gateway("POST", files, order).ok(201)
    one = f"{files}/{made['file']['id']}"
    gateway("GET", one).problem(404, "file_not_found")
    assert gateway("GET", files).ok()["data"] == []
    assert gateway("POST", f"{one}/arrived").ok() == made["file"] == gateway("POST", f"{one}/arrived").ok()
    assert gateway("GET", one).ok() == made["file"]
    assert made["file"].items() >= {"object": "file", "bytes": 3, "filename": "in.jsonl", "purpose": "batch"}.items()


def test_its_content_is_where_it_was_put(gateway: Call, files: str, put: Callable[..., str], bucket: str) -> None:
    content = gateway("GET", f"{files}/{put(b'{1}')}/content").ok()
    [url] = content["urls"]
    stored = aws.client("s3").get_object(Bucket=bucket, Key=object_key(url))
    assert stored["Body"].read() == b"{1}" and content["file"]["bytes"] == 3


def test_deleting_takes_record_and_bytes(gateway: Call, files: str, put: Callable[..., str], bucket: str) -> None:
    one, other = put(), put()
    assert gateway("DELETE", f"{files}/{one}").ok() == {"id": one, "object": "file", "deleted": True}
    gateway("GET", f"{files}/{one}").problem(404, "file_not_found")
    gateway("DELETE", f"{files}/{one}").problem(404, "file_not_found")
    left = [item["Key"] for item in aws.client("s3").list_objects_v2(Bucket=bucket)["Contents"]]
    assert len(left) == 1 and other in left[0]


def test_another_projects_file_does_not_exist(gateway: Call, call: Call, put: Callable[..., str]) -> None:
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    one = put()
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", ""), ("POST", "/arrived")):
        gateway(method, f"/gateway/projects/{other}/files/{one}{path}").problem(404, "file_not_found")
    assert gateway("GET", f"/gateway/projects/{other}/files").ok()["data"] == []


def test_pages_follow_each_other_in_either_order(
    gateway: Call, call: Call, files: str, put: Callable[..., str], key: str
) -> None:
    ids = [put(name=f"{number}.jsonl") for number in range(3)]
    headers = {"authorization": gateway.bearer}  # type: ignore[attr-defined]
    first = call("GET", files, None, None, headers, limit=2).ok()
    assert {first["first_id"], first["last_id"], *ids} == set(ids) and first["has_more"]
    rest = call("GET", files, None, None, headers, limit=2, after=first["last_id"]).ok()
    assert [one["id"] for one in first["data"] + rest["data"]] == sorted(ids, reverse=True)
    assert not rest["has_more"]
    assert not call("GET", files, None, None, headers, limit=3).ok()["has_more"]
    assert call("GET", files, None, None, headers, purpose="batch_output").ok()["data"] == []
    assert len(call("GET", files, None, None, headers, purpose="batch").ok()["data"]) == 3
    old = call("GET", files, None, None, headers, oldest_first="true").ok()
    assert [one["id"] for one in old["data"]] == sorted(ids)
    assert call("GET", files, None, None, headers, after="../x").status == 422


def test_a_file_ends_after_thirty_days(gateway: Call, files: str, put: Callable[..., str]) -> None:
    one = put()
    with fixed(now_ms() + 31 * DAY_MS):
        gateway("GET", f"{files}/{one}").problem(404, "file_not_found")
        page = gateway("GET", files).ok()
    assert (page["data"], page["has_more"]) == ([], False)


def test_a_project_has_so_many_files(
    gateway: Call, files: str, put: Callable[..., str], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("functions.app.services.files.MAX_FILES", 2)
    order = {"key_id": key, "filename": "in.jsonl", "bytes": 3}
    one = put()
    gateway("POST", files, order).ok(201)  # its bytes never come
    gateway("POST", files, order).problem(409, "too_many_files")
    gateway("DELETE", f"{files}/{one}").ok()
    put()


def test_a_malformed_order_is_refused(gateway: Call, files: str, key: str, bucket: str) -> None:
    for change in (
        {"filename": "../a"}, {"filename": "a\\b"}, {"filename": "a\0"}, {"filename": ""}, {"filename": "a" * 256},
        {"bytes": 0}, {"bytes": 201 * 2**20}, {"bytes": "3"}, {"key_id": "a/b"},
    ):  # fmt: skip
        order = {"key_id": key, "filename": "in.jsonl", "bytes": 3, **change}
        gateway("POST", files, order).problem(422, "invalid_request")


def test_a_key_of_another_project_makes_no_file(gateway: Call, call: Call, key: str, bucket: str) -> None:
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    order = {"key_id": key, "filename": "in.jsonl", "bytes": 3}
    gateway("POST", f"/gateway/projects/{other}/files", order).problem(404, "key_not_found")
