"""Which function answers which path, and who is let in."""

import importlib
from typing import Any

import pytest

from stacks.routes import ROUTES

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


def table(stacks: Any) -> dict[tuple[str, str], str]:
    """(method, path) → name of the function that answers."""
    found = {}
    for route in stacks.all("AWS::ApiGatewayV2::Route"):
        method, path = route.properties["RouteKey"].split(" ")
        integration = stacks.target("api", route.properties["Target"]["Fn::Join"][1][1])
        alias = stacks.target("api", integration.properties["IntegrationUri"])
        found[method, path] = stacks.target("api", alias.properties["FunctionName"]).name
    return found


def answers(routes: dict[tuple[str, str], str], method: str, path: str) -> str | None:
    """API Gateway's choice: a full match first, else the longest greedy one."""
    wanted = path.strip("/").split("/")
    best: tuple[int, int, str] | None = None
    for (offered, pattern), function in routes.items():
        parts = pattern.strip("/").split("/")
        greedy = parts[-1] == "{proxy+}"
        fixed = parts[:-1] if greedy else parts
        fits = len(wanted) > len(fixed) if greedy else len(wanted) == len(fixed)
        if (
            offered != method
            or not fits
            or not all(p.startswith("{") or p == w for p, w in zip(fixed, wanted, strict=False))
        ):
            continue
        rank = (0 if greedy else 1, sum(not p.startswith("{") for p in fixed) + len(fixed), function)
        best = max(best, rank) if best else rank
    return best[2] if best else None


def operations() -> list[tuple[str, str, str]]:
    """(domain, method, path) of every route that the domains serve."""
    found = []
    for domain in ROUTES:
        document = importlib.import_module(f"functions.{domain}.handler").app.openapi()
        found += [
            (domain, m.upper(), path) for path, item in document["paths"].items() for m in item if m.upper() in METHODS
        ]
    return found


@pytest.mark.parametrize(("domain", "method", "path"), operations())
def test_every_operation_reaches_its_domain(stacks: Any, domain: str, method: str, path: str) -> None:
    concrete = path.replace("{", "").replace("}", "")
    assert answers(table(stacks), method, concrete) == f"foundry-test-{domain}-api"


def test_only_gateways_get_in_without_a_token_of_the_pool(stacks: Any) -> None:
    routes = stacks.all("AWS::ApiGatewayV2::Route")
    open_ = {r.properties["RouteKey"] for r in routes if r.properties["AuthorizationType"] != "JWT"}
    assert open_ == {f"{method} /gateway/{{proxy+}}" for method in ("GET", "POST", "DELETE")}
    assert all("AuthorizerId" in r.properties for r in routes if r.properties["RouteKey"] not in open_)


def test_no_route_catches_preflights(stacks: Any) -> None:
    methods = {r.properties["RouteKey"].split(" ")[0] for r in stacks.all("AWS::ApiGatewayV2::Route")}
    assert methods == METHODS


def test_tokens_are_checked_against_pool_and_both_clients(stacks: Any) -> None:
    (authorizer,) = stacks.all("AWS::ApiGatewayV2::Authorizer")
    jwt = authorizer.properties["JwtConfiguration"]
    assert (
        stacks.text("api", jwt["Issuer"]) == "https://cognito-idp.<AWS::Region>.<AWS::URLSuffix>/<foundry-test-people>"
    )
    clients = {stacks.target("api", audience).properties["ClientName"] for audience in jwt["Audience"]}
    assert clients == {"foundry-test-web", "foundry-test-cli"}
    assert authorizer.properties["IdentitySource"] == ["$request.header.Authorization"]


def test_stage_throttles_and_logs(stacks: Any) -> None:
    (stage,) = stacks.all("AWS::ApiGatewayV2::Stage")
    assert stage.properties["StageName"] == "$default" and stage.properties["AutoDeploy"] is True
    assert stage.properties["DefaultRouteSettings"] == {"ThrottlingBurstLimit": 400, "ThrottlingRateLimit": 200}
    gateways = {"ThrottlingBurstLimit": 150, "ThrottlingRateLimit": 75}
    open_ = {f"{method} /gateway/{{proxy+}}": gateways for method in ("GET", "POST", "DELETE")}
    assert stage.properties["RouteSettings"] == open_
    before = stacks.templates["api"]["Resources"][stage.id]["DependsOn"]  # settings of a route need the route
    assert open_.keys() <= {stacks.target("api", {"Ref": id_}).properties.get("RouteKey") for id_ in before}
    assert "authorization" not in stage.properties["AccessLogSettings"]["Format"].lower()


def test_cors_is_for_known_origins(stacks: Any) -> None:
    (api,) = stacks.all("AWS::ApiGatewayV2::Api")
    cors = api.properties["CorsConfiguration"]
    assert cors["AllowOrigins"] == ["http://localhost:4700"] and "*" not in cors["AllowHeaders"]


def test_api_gateway_may_call_the_functions_of_this_api_only(stacks: Any) -> None:
    (api,) = stacks.all("AWS::ApiGatewayV2::Api")
    permissions = stacks.all("AWS::Lambda::Permission")
    callers = {"api": "apigateway.amazonaws.com", "workflows": "events.amazonaws.com"}
    assert {(each.stack, each.properties["Principal"]) for each in permissions} == set(callers.items())
    for permission in (each for each in permissions if each.stack == "api"):
        assert f"<{api.name}>" in stacks.text("api", permission.properties["SourceArn"])
