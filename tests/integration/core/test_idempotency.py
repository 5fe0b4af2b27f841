"""A POST with an Idempotency-Key happens once, per caller and route, and a replay gets the first answer."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Response
from foundry_core import aws
from foundry_core.errors import Conflict
from foundry_core.http import CurrentPrincipal, create_app
from foundry_core.lambda_api import SECRET_HEADER, api_handler
from pydantic import BaseModel, Field

Call = Callable[..., Any]


class Body(BaseModel):
    name: Annotated[str, Field(max_length=50)]


class Made(BaseModel):
    number: int
    name: str
    secret: str | None = None


class Seen(list[str]):
    """Names that came through; ``hooks`` run inside the route."""

    def __init__(self) -> None:
        super().__init__()
        self.hooks: list[Callable[[], None]] = []


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, aws_tables: None) -> Iterator[Seen]:
    """A small API in the place of the app domain's; the list says which bodies came through."""
    seen = Seen()
    router = APIRouter()

    @router.post("/users", status_code=201)
    def make(body: Body, response: Response, _: CurrentPrincipal) -> Made:
        seen.append(body.name)
        if seen.hooks:
            seen.hooks.pop()()
        if body.name == "refused" and len(seen) == 1:
            raise Conflict("Not now.")
        if body.name == "broken" and len(seen) == 1:
            raise RuntimeError("boom")
        if body.name == "secret":
            response.headers[SECRET_HEADER] = "secret"
        return Made(number=len(seen), name=body.name, secret="s3cret" if body.name == "secret" else None)

    router.add_api_route("/gateways", make, methods=["POST"], status_code=201, name="other")
    handler = api_handler(create_app("app", router), "app")
    monkeypatch.setattr("functions.app.handler.api", handler)
    yield seen


def post(call: Call, name: str, key: str | None = "k", who: Any = "admin", path: str = "/users") -> Any:
    return call("POST", path, {"name": name}, who, {"idempotency-key": key} if key is not None else {})


def test_a_replay_gets_the_first_answer(call: Call, calls: Any) -> None:
    first, again = post(call, "a"), post(call, "a")
    assert again.ok(201) == first.ok(201) == {"number": 1, "name": "a", "secret": None}
    assert calls == ["a"]


def test_another_body_under_the_same_key_is_refused(call: Call, calls: Any) -> None:
    post(call, "a").ok(201)
    post(call, "b").problem(422, "idempotency_key_reused")
    assert calls == ["a"]


def test_without_a_key_each_request_counts(call: Call, calls: Any) -> None:
    for key in (None, ""):
        post(call, "a", key)
        post(call, "a", key)
    assert len(calls) == 4


def test_keys_are_per_caller_and_route(call: Call, calls: Any) -> None:
    post(call, "a"), post(call, "a", who="developer"), post(call, "a", path="/gateways"), post(call, "a", key="l")
    assert len(calls) == 4


def test_a_secret_is_shown_once_and_never_kept(call: Call, calls: Any) -> None:
    assert post(call, "secret").ok(201)["secret"] == "s3cret"
    assert "s3cret" not in str(aws.client("dynamodb").scan(TableName="foundry-test-app")["Items"])
    answer = post(call, "secret")
    again = answer.ok(201)
    assert int(answer.headers["content-length"]) == len(json.dumps(again))
    assert again == {"number": 1, "name": "secret", "secret": None} and calls == ["secret"]


@pytest.mark.parametrize(("name", "status"), [("refused", 409), ("broken", 500)])
def test_a_refusal_is_not_kept(call: Call, calls: Any, name: str, status: int) -> None:
    assert post(call, name).status == status
    assert post(call, name).ok(201)["number"] == 2


def test_a_request_that_is_being_worked_on(call: Call, calls: Any) -> None:
    """The second request comes while the first one is inside the route."""
    inner: list[Any] = []

    def meanwhile() -> None:
        with ThreadPoolExecutor(1) as pool:
            inner.append(pool.submit(post, call, "slow").result())

    calls.hooks.append(meanwhile)
    post(call, "slow").ok(201)
    inner[0].problem(409, "in_progress")
    assert calls == ["slow"]


def test_a_store_that_is_away(call: Call, calls: Any) -> None:
    aws.client("dynamodb").delete_table(TableName="foundry-test-app")
    post(call, "a").problem(503, "unavailable")
    assert calls == []


def test_nobody_is_not_a_caller(call: Call, calls: Any) -> None:
    """Without a verified identity nothing is kept, so that nobody gets another's answer."""
    for _ in range(2):
        post(call, "a", who=None).problem(401, "unauthenticated")
    kept = aws.client("dynamodb").query(
        TableName="foundry-test-app",
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "IDEMPOTENCY"}},
    )
    assert kept["Count"] == 0
