"""moto with the tables and the bus that the functions expect, and a client that calls their Lambda handlers."""

import copy
import importlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from foundry_core import aws
from foundry_core.permissions import Level
from foundry_core.principal import Principal, Role
from foundry_core.settings import settings
from moto import mock_aws
from moto.cognitoidp import models as cognito
from moto.core import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler
from moto.kms import models as kms

# DynamoDB handles each request as a whole; moto, asked by several threads, does not.
_alone = threading.RLock()
_answer = DynamoHandler.call_action


def _answer_alone(self: DynamoHandler) -> Any:
    with _alone:
        return _answer(self)


DynamoHandler.call_action = _answer_alone  # type: ignore[method-assign]

# moto makes a key of 2,048 bits for every KMS key, which nothing here signs with, and factors the same one for every
# user pool: making them is what takes the time.
kms.generate_private_key = cache(kms.generate_private_key)
_pool_key = cognito.jwk.RSAKey.import_key(cognito.load_resource("cognitoidp/resources/jwks-private.json"))
cognito.jwk = SimpleNamespace(RSAKey=SimpleNamespace(import_key=lambda file: _pool_key))

PROJECTS = ("p1", "prj_1", "prj_2")  # they have an owner, so they exist
DOMAINS = ("app", "model", "cluster", "sim", "metrics", "runs")


def create_table(domain: str) -> None:
    names = ("pk", "sk", "gsi1pk", "gsi1sk")
    aws.client("dynamodb").create_table(
        TableName=f"foundry-test-{domain}",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "gsi1",
                "KeySchema": [
                    {"AttributeName": "gsi1pk", "KeyType": "HASH"},
                    {"AttributeName": "gsi1sk", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )


def _tables() -> dict[str, Table]:
    tables: dict[str, Table] = dynamodb_backends[DEFAULT_ACCOUNT_ID][os.environ["AWS_REGION"]].tables
    return tables


@cache
def _fresh_tables() -> dict[str, Table]:
    """What every test finds, made once by the API that makes it for real."""
    for domain in DOMAINS:
        create_table(domain)
    for project_id in PROJECTS:
        add_member(project_id, "owner", user_id="u-founder")
    return copy.deepcopy(_tables())


@pytest.fixture
def aws_tables() -> Iterator[None]:
    """All tables and the bus on moto, with the projects ``PROJECTS``.

    Clients live on between tests: making them is what takes the time.
    """
    with mock_aws(config={"core": {"reset_boto3_session": False}}):
        _tables().update(copy.deepcopy(_fresh_tables()))
        aws.client("events").create_event_bus(Name="foundry-test")
        settings.cache_clear()
        yield
        settings.cache_clear()


@pytest.fixture
def lambda_context() -> SimpleNamespace:
    return SimpleNamespace(
        function_name="test",
        function_version="1",
        memory_limit_in_mb=512,
        invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:test",
        aws_request_id="request",
        get_remaining_time_in_millis=lambda: 30_000,
    )


PEOPLE = {role.value: Principal(f"u-{role.value}", f"{role.value}@example.com", frozenset({role})) for role in Role}


def add_member(project_id: str, level: str, role: str = "developer", user_id: str | None = None) -> Principal:
    who = Principal(user_id or f"u-{level}-{project_id}", f"{level}@example.com", frozenset({Role(role)}))
    item = {"pk": f"PROJECT#{project_id}", "sk": f"MEMBER#{who.user_id}", "level": Level(level).value,
            "kind": "member", "user_id": who.user_id, "project_id": project_id}  # fmt: skip
    attributes = {name: {"S": value} for name, value in item.items()}
    attributes |= {"schema_version": {"N": "1"}, "version": {"N": "1"}, "added_at_ms": {"N": "0"}}
    aws.client("dynamodb").put_item(TableName="foundry-test-app", Item=attributes)
    return who


@dataclass(frozen=True)
class Answer:
    """What a client gets: ``body`` is parsed JSON, or None when there is none."""

    status: int
    body: Any
    headers: Mapping[str, str]

    def ok(self, status: int = 200) -> Any:
        assert self.status == status, f"{self.status}: {self.body}"
        return self.body

    def problem(self, status: int, code: str) -> Any:
        assert self.status == status and self.headers["content-type"] == "application/problem+json", self.body
        assert self.body["code"] == code and self.body["detail"], self.body
        return self.body


def http_event(
    method: str, path: str, body: Any, principal: Principal | None, headers: Mapping[str, str], query: Mapping[str, Any]
) -> dict[str, Any]:
    """An API Gateway HTTP API event (payload format 2.0). ``body`` is sent as JSON, a string as it is."""
    http = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.9", "userAgent": "test"}
    context: dict[str, Any] = {"http": http, "stage": "$default", "requestId": "r", "domainName": "api.example.com"}
    if principal:
        claims = {"sub": principal.user_id, "username": principal.username}
        claims["cognito:groups"] = f"[{' '.join(sorted(principal.roles))}]"
        context["authorizer"] = {"jwt": {"claims": claims, "scopes": None}}
    event = {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": urlencode(query),
        "headers": {"host": "api.example.com", "content-type": "application/json", **headers},
        "requestContext": context, "isBase64Encoded": False,
    }  # fmt: skip
    if body is not None:
        event["body"] = body if isinstance(body, str) else json.dumps(body)
    return event


def domain_of(path: str) -> str:
    """The domain that serves ``path``, as the API stack routes it: the most specific prefix wins."""
    parts = path.strip("/").split("/")
    if parts[0] == "projects" and len(parts) > 2:
        return {"deployments": "cluster", "simulations": "sim", "simulator": "sim", "metrics": "metrics"}.get(
            parts[2], "app"
        )
    return {"models": "model", "clusters": "cluster", "devices": "sim", "simulator": "sim"}.get(parts[0], "app")


@dataclass
class Client:
    """Calls ``functions.<domain>.handler.api`` as API Gateway would, as one principal (a role's name, or None)."""

    context: Any
    principal: Principal | None = field(default_factory=lambda: PEOPLE["admin"])

    def as_(self, who: Principal | str | None) -> "Client":
        return Client(self.context, PEOPLE[who] if isinstance(who, str) else who)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        principal: Principal | str | None = "",
        headers: Mapping[str, str] | None = None,
        **query: Any,
    ) -> Answer:
        who = self if principal == "" else self.as_(principal)
        event = http_event(method, quote(path), body, who.principal, headers or {}, query)
        handler = importlib.import_module(f"functions.{domain_of(path)}.handler").api
        response = handler(event, self.context)
        text = response.get("body") or ""
        return Answer(response["statusCode"], json.loads(text) if text else None, response.get("headers", {}))


@pytest.fixture
def client(aws_tables: None, lambda_context: SimpleNamespace) -> Client:
    """``client.call("POST", "/projects", {"name": "p"})``, as an admin unless ``principal`` says otherwise."""
    return Client(lambda_context)


@pytest.fixture
def call(client: Client) -> Callable[..., Answer]:
    """``call(method, path, body=None, principal="admin", headers=None, **query)`` → Answer(status, body, headers)."""
    return client.call


@pytest.fixture
def people() -> dict[str, Principal]:
    """One principal per role: ``people["developer"]``; the user id is ``u-developer``."""
    return PEOPLE


@pytest.fixture
def join(aws_tables: None) -> Callable[..., Principal]:
    """``join("p1", "viewer", role="client")``: a new principal with that membership, written straight to the table."""

    return add_member
