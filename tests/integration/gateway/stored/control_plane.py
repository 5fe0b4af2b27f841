"""The real control plane for a gateway under test: its functions on moto, asked without a socket."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
from botocore.exceptions import ClientError
from foundry_core import aws

BUCKET = "foundry-test-metering"
URL = "http://control-plane"


class ControlPlaneTransport(httpx.AsyncBaseTransport):
    """What a gateway sends to the control plane reaches its functions, what it sends to object storage reaches moto.
    ``away``: neither answers. ``seen``: method and path of all that came."""

    def __init__(self) -> None:
        from functions.app.handler import app

        self._functions = httpx.ASGITransport(app)
        self.away = False
        self.seen: list[str] = []
        self.before: Callable[[httpx.Request], None] = lambda request: None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(f"{request.method} {request.url.path}")
        self.before(request)
        if self.away:
            raise httpx.ConnectError("away")
        if request.url.host == "control-plane":
            return await self._functions.handle_async_request(request)
        body = await request.aread()
        assert "X-Amz-Signature" in str(request.url)
        try:
            return self._object(request, request.url.path.lstrip("/").removeprefix(f"{BUCKET}/"), body)
        except ClientError as error:
            return httpx.Response(error.response["ResponseMetadata"]["HTTPStatusCode"])

    def _object(self, request: httpx.Request, key: str, body: bytes) -> httpx.Response:
        if request.method == "PUT":
            assert len(body) == int(request.headers["content-length"])
            aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)
            return httpx.Response(200)
        asked = {"Range": request.headers["range"]} if "range" in request.headers else {}
        found = aws.client("s3").get_object(Bucket=BUCKET, Key=key, **asked)
        return httpx.Response(206 if asked else 200, content=found["Body"].read())


@dataclass
class Plane:
    """A project with a key, a registered gateway, and how gateways reach all that."""

    transport: ControlPlaneTransport
    call: Callable[..., Any]
    project: str
    key_id: str
    secret: str
    token: str

    def objects(self) -> list[str]:
        found = aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="files/")
        return [re.sub(r"^files/", "", item["Key"]) for item in found.get("Contents", [])]

    def add_key(self, project: str, **fields: Any) -> Any:
        return self.call("POST", f"/projects/{project}/keys", {"name": "one", **fields}).ok(201)

    def limit_key(self, **limits: int) -> None:
        from foundry_core.principal import Principal

        from functions.app.schemas import KeyChange, Limits
        from functions.app.services import keys

        change = KeyChange(limits=Limits(**limits))
        keys.change(self.project, self.key_id, change, Principal("u", "u@example.com", frozenset()))

    def upload(self, content: bytes) -> str:
        """A file of the project."""
        from functions.app.openai_wire import FileOrder
        from functions.app.services import files

        order = FileOrder(key_id=self.key_id, filename="in.jsonl", bytes=len(content))
        file = files.order(self.project, order).file
        key = f"files/{self.project}/{file.id}/input.jsonl"
        aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)
        return files.arrived(self.project, file.id).id

    def made_of(self, *parts: bytes) -> str:
        """A file of the project that lies in parts, as the output of a batch does."""
        from functions.app.store import files

        whole = files.load(self.project, self.upload(b"".join(parts)))
        names = tuple(f"part-{number}" for number in range(len(parts)))
        split = replace(whole, file=whole.file.model_copy(update={"id": "file_split"}), parts=names)
        files.insert(split)
        for key, content in zip(split.keys, parts, strict=True):
            aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)
        return split.file.id

    def order(self, content: bytes, endpoint: str = "/v1/chat/completions") -> str:
        """A batch of the project."""
        from functions.app.openai_wire import BatchOrder
        from functions.app.services import batches

        asked = {"endpoint": endpoint, "completion_window": "24h", "address": "127.0.0.1"}
        order = BatchOrder(key_id=self.key_id, input_file_id=self.upload(content), **asked)  # type: ignore[arg-type]
        return batches.create(self.project, order).id

    def batch(self, batch_id: str) -> Any:
        from functions.app.services import batches

        return batches.get(self.project, batch_id)

    def lines(self, file_id: str | None) -> list[Any]:
        """What a file of the project holds."""
        from functions.app.store import files

        keys = files.load(self.project, file_id).keys if file_id else []
        found = [aws.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys]
        return [json.loads(line) for line in b"".join(found).splitlines()]

    def silence(self, batch_id: str) -> None:
        """The gateway that runs it has not been heard of for a minute."""
        from functions.app.store import batches

        def change(stored: Any) -> tuple[None, list[Any]]:
            stored.claim_until_ms = 0
            return None, []

        batches.update(self.project, batch_id, change)

    def publish(self, name: str, address: str, price: dict[str, int]) -> None:
        """An endpoint of the project with one engine."""
        from functions.app.services import endpoints

        facts = {"deployment_id": f"dep_{name}", "project_id": self.project, "model_id": "m", "cluster_id": "c",
                 "price": price}  # fmt: skip
        endpoints.publish({**facts, "endpoint_name": name}, {"upstreams": [address]})


def make_plane(call: Callable[..., Any]) -> Plane:
    """Not within an event loop: the functions' handler runs one of its own."""
    aws.client("s3").create_bucket(Bucket=BUCKET)
    project = call("POST", "/projects", {"name": "alpha"}).ok(201)["id"]
    key = call("POST", f"/projects/{project}/keys", {"name": "one"}).ok(201)
    token = call("POST", "/gateways", {"name": "edge"}).ok(201)["token"]
    return Plane(ControlPlaneTransport(), call, project, key["id"], key["secret"], token)
