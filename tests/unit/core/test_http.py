"""Problem documents, ETags and the body limit of a domain's application."""

from typing import Annotated

import pytest
from fastapi import APIRouter, Request, Response
from fastapi.testclient import TestClient
from foundry_core import errors
from foundry_core.errors import PROBLEM_JSON, FoundryError, TransientError
from foundry_core.http import MAX_BODY_BYTES, create_app, etag, not_modified, require, require_match
from foundry_core.permissions import Action
from foundry_core.principal import Principal
from pydantic import BaseModel

ALL_ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FoundryError)]


class Thing(BaseModel):
    size: int


@pytest.fixture
def client() -> TestClient:
    router = APIRouter()

    @router.get("/errors/{name}")
    def fail(name: str) -> None:
        if name == "unexpected":
            raise ZeroDivisionError("the secret is 42")
        raise getattr(errors, name)("It went wrong.", next_action="Try harder.", extra={"left": 1})

    @router.post("/things")
    def make(thing: Thing) -> Thing:
        return thing

    @router.get("/tagged")
    def tagged(request: Request, response: Response) -> Thing:
        if not_modified(request, response, etag("one")):
            return Response(status_code=304, headers={"etag": response.headers["etag"]})  # type: ignore[return-value]
        return Thing(size=1)

    @router.patch("/tagged")
    def change(request: Request) -> Thing:
        require_match(request, etag("one"))
        return Thing(size=2)

    @router.get("/admins")
    def admins(_: Annotated[Principal, require(Action.USERS_WRITE)]) -> Thing:
        return Thing(size=3)

    return TestClient(create_app("test", router), raise_server_exceptions=False)


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_an_error_is_a_problem_document(client: TestClient, kind: type[FoundryError]) -> None:
    answer = client.get(f"/errors/{kind.__name__}")
    assert (answer.status_code, answer.headers["content-type"]) == (kind.status, PROBLEM_JSON)
    assert answer.json() == {
        "type": f"https://foundry.dev/problems/{kind.default_code}", "title": kind.title, "status": kind.status,
        "detail": "It went wrong.", "code": kind.default_code, "next_action": "Try harder.", "extra": {"left": 1},
    }  # fmt: skip


def test_state_machines_know_the_transient_error_by_name() -> None:
    assert TransientError.__name__ == "TransientError" and TransientError.status == 503


def test_an_unexpected_error_says_nothing_of_itself(client: TestClient) -> None:
    answer = client.get("/errors/unexpected")
    assert answer.status_code == 500 and answer.json()["code"] == "internal_error" and "42" not in answer.text


def test_a_wrong_body_names_its_fields(client: TestClient) -> None:
    problem = client.post("/things", json={"size": "large"}).json()
    assert (problem["status"], problem["code"]) == (422, "invalid_request")
    assert [one["field"] for one in problem["errors"]] == ["size"] and problem["detail"].startswith("size: ")


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"size": 1' + b"0" * 5000 + b"}", b"[" * 100_000, b"NaN"])
def test_rubbish_is_a_problem_too(client: TestClient, content: bytes) -> None:
    answer = client.post("/things", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422 and answer.headers["content-type"] == PROBLEM_JSON


def test_nothing_there_and_no_such_method(client: TestClient) -> None:
    assert client.get("/nothing").json()["code"] == "not_found"
    answer = client.delete("/things")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert client.get("/things/").json()["code"] == "not_found"  # no redirects


def test_the_body_limit(client: TestClient) -> None:
    fits = b'{"size": 1}'.ljust(MAX_BODY_BYTES)
    headers = {"content-type": "application/json"}
    assert client.post("/things", content=fits, headers=headers).status_code == 200
    assert client.post("/things", content=fits + b" ", headers=headers).json()["code"] == "body_too_large"


@pytest.mark.parametrize("offered", [etag("one"), f'"x", {etag("one")}', "*"])
def test_the_client_has_it(client: TestClient, offered: str) -> None:
    answer = client.get("/tagged", headers={"if-none-match": offered})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag("one"))


@pytest.mark.parametrize("offered", ["", etag("two"), etag("one").strip('"')])
def test_the_client_has_another(client: TestClient, offered: str) -> None:
    assert client.get("/tagged", headers={"if-none-match": offered}).json() == {"size": 1}


@pytest.mark.parametrize(
    ("wanted", "status"), [(None, 200), ("*", 200), (etag("one"), 200), (etag("two"), 412), ("", 412)]
)
def test_if_match(client: TestClient, wanted: str | None, status: int) -> None:
    headers = {} if wanted is None else {"if-match": wanted}
    assert client.patch("/tagged", headers=headers).status_code == status


def test_no_identity_no_entry(client: TestClient) -> None:
    answer = client.get("/admins", headers={"authorization": "Bearer whatever"})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
