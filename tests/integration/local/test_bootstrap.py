"""The first steps against Cognito (moto) and an API of our own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from foundry_local import bootstrap
from foundry_local.bootstrap import BootstrapError, Credentials, UserPool
from foundry_local.serve import Server, bind
from foundry_local.state import StateDir
from moto import mock_aws
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@pytest.fixture
def pool() -> Iterator[UserPool]:
    with mock_aws(config={"core": {"passthrough": {"urls": ["127.0.0.1"]}}}):
        cognito = boto3.client("cognito-idp")
        pool_id = cognito.create_user_pool(PoolName="people", UsernameAttributes=["email"])["UserPool"]["Id"]
        for role in bootstrap.ROLES:
            cognito.create_group(UserPoolId=pool_id, GroupName=role)
        client = cognito.create_user_pool_client(
            UserPoolId=pool_id, ClientName="cli", ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH"]
        )
        yield UserPool(pool_id, client["UserPoolClient"]["ClientId"])


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "state")
    state.create()
    return state


def roles_of(pool: UserPool, email: str) -> list[str]:
    cognito = boto3.client("cognito-idp")
    groups = cognito.admin_list_groups_for_user(UserPoolId=pool.pool_id, Username=email)["Groups"]
    return [group["GroupName"] for group in groups]


def test_a_user_per_role_can_sign_in(pool: UserPool, state: StateDir) -> None:
    bootstrap.create_users(pool, Credentials(state))
    credentials = Credentials(state)
    assert set(credentials.passwords) == {f"{role}@foundry.local" for role in bootstrap.ROLES}
    for role in bootstrap.ROLES:
        email = bootstrap.username(role)
        assert roles_of(pool, email) == [role]
        assert bootstrap.sign_in(pool, email, credentials.passwords[email])
    assert state.credentials.stat().st_mode & 0o077 == 0


def test_a_second_start_changes_nothing(pool: UserPool, state: StateDir) -> None:
    bootstrap.create_users(pool, Credentials(state))
    before = state.credentials.read_bytes()
    bootstrap.create_users(pool, Credentials(state))
    assert state.credentials.read_bytes() == before


def test_a_user_that_a_crash_took_back_is_made_again(pool: UserPool, state: StateDir) -> None:
    bootstrap.create_users(pool, Credentials(state))
    boto3.client("cognito-idp").admin_delete_user(UserPoolId=pool.pool_id, Username="admin@foundry.local")
    bootstrap.create_users(pool, credentials := Credentials(state))
    assert bootstrap.sign_in(pool, "admin@foundry.local", credentials.passwords["admin@foundry.local"])


def test_lost_passwords_are_replaced(pool: UserPool, state: StateDir) -> None:
    bootstrap.create_users(pool, Credentials(state))
    state.credentials.unlink()
    bootstrap.create_users(pool, credentials := Credentials(state))
    assert bootstrap.sign_in(pool, "operator@foundry.local", credentials.passwords["operator@foundry.local"])


class Api:
    """`/gateways` and `/gateway/config` as the app domain answers them."""

    def __init__(self) -> None:
        self.gateways: dict[str, dict[str, str]] = {}
        self.made = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/gateways", self.page, methods=["GET"]),
                Route("/gateways", self.create, methods=["POST"]),
                Route("/gateways/{id}", self.delete, methods=["DELETE"]),
                Route("/gateway/config", self.config),
            ]
        )

    async def page(self, request: Request) -> Response:
        return JSONResponse({"items": list(self.gateways.values())}, 200 if self._bearer(request) else 401)

    async def create(self, request: Request) -> Response:
        name = (await request.json())["name"]
        if any(gateway["name"] == name for gateway in self.gateways.values()):
            return JSONResponse({"code": "name_taken"}, 409)
        self.made += 1
        gateway = {"id": f"gw_{self.made}", "name": name}
        self.gateways[f"token-{self.made}"] = gateway
        return JSONResponse({**gateway, "token": f"token-{self.made}"}, 201)

    async def delete(self, request: Request) -> Response:
        wanted = request.path_params["id"]
        self.gateways = {token: gateway for token, gateway in self.gateways.items() if gateway["id"] != wanted}
        return Response(status_code=204)

    async def config(self, request: Request) -> Response:
        return JSONResponse({}, 200 if self._bearer(request) in self.gateways else 401)

    @staticmethod
    def _bearer(request: Request) -> str:
        return request.headers.get("authorization", "").removeprefix("Bearer ")


@pytest.fixture
def api() -> Iterator[Any]:
    api = Api()
    server = Server(api.app(), bind(0), "api")
    server.start()
    api.url = server.url  # type: ignore[attr-defined]
    yield api
    server.stop()


def register(api: Any, pool: UserPool, state: StateDir) -> str:
    bootstrap.create_users(pool, credentials := Credentials(state))
    return bootstrap.register_gateway(api.url, pool, credentials)


def test_the_gateway_is_registered_once(api: Any, pool: UserPool, state: StateDir) -> None:
    assert register(api, pool, state) == register(api, pool, state) == "token-1"
    assert Credentials(state).gateway_token == "token-1"


def test_a_gateway_that_a_crash_took_back_is_registered_again(api: Any, pool: UserPool, state: StateDir) -> None:
    register(api, pool, state)
    api.gateways.clear()
    assert register(api, pool, state) == "token-2"


def test_a_gateway_whose_token_we_lost_is_replaced(api: Any, pool: UserPool, state: StateDir) -> None:
    register(api, pool, state)
    state.credentials.unlink()
    assert register(api, pool, state) == "token-2"
    assert [gateway["id"] for gateway in api.gateways.values()] == ["gw_2"]


def test_a_refusal_is_one_message(api: Any, pool: UserPool, state: StateDir) -> None:
    bootstrap.create_users(pool, credentials := Credentials(state))
    with pytest.raises(BootstrapError, match="GET /nowhere/gateways: 404"):
        bootstrap.register_gateway(f"{api.url}/nowhere", pool, credentials)
