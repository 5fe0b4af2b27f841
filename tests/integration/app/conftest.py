"""A user pool on moto, a project, and a registered gateway."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from foundry_core import aws
from foundry_core.settings import settings

Call = Callable[..., Any]


@pytest.fixture
def user_pool(aws_tables: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A pool like the identity stack's: people sign in by e-mail, a group per role."""
    cognito = aws.client("cognito-idp")
    pool = cognito.create_user_pool(PoolName="people", UsernameAttributes=["email"])["UserPool"]["Id"]
    for role in ("admin", "developer", "operator", "auditor", "client"):
        cognito.create_group(UserPoolId=pool, GroupName=role)
    monkeypatch.setenv("USER_POOL_ID", pool)
    settings.cache_clear()
    return str(pool)


@pytest.fixture
def project(call: Call) -> str:
    return str(call("POST", "/projects", {"name": "alpha"}, "developer").ok(201)["id"])


@pytest.fixture
def gateway(call: Call) -> Callable[..., Any]:
    """``gateway("GET", "/gateway/config")``: a call with the token of a registered gateway."""
    token = call("POST", "/gateways", {"name": "edge"}, "operator").ok(201)["token"]

    def as_gateway(method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        return call(method, path, body, None, {"authorization": f"Bearer {token}", **(headers or {})})

    as_gateway.bearer = f"Bearer {token}"  # type: ignore[attr-defined]
    return as_gateway


@pytest.fixture
def outbox(aws_tables: None) -> Callable[[], list[dict[str, Any]]]:
    """The events that wait to be relayed."""
    from functions.app.store.table import AppOutbox

    return lambda: [item.event for item in AppOutbox.scan()]


@pytest.fixture
def bucket(aws_tables: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    aws.client("s3").create_bucket(Bucket="foundry-test-metering")
    monkeypatch.setenv("METERING_BUCKET", "foundry-test-metering")
    settings.cache_clear()
    yield "foundry-test-metering"
    settings.cache_clear()


@pytest.fixture(autouse=True)
def _fresh_clients() -> Iterator[None]:
    yield
    settings.cache_clear()
