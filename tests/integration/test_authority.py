"""Every route × every kind of caller. The table is written by hand: it must not be derived from the code it checks.

A row names who is let in. Everyone else gets 403; to a stranger a project, and what is in it, does not exist (404);
without a token API Gateway already answers 401, and so do the functions.
"""

from collections.abc import Callable
from typing import Any

import pytest
from foundry_core.principal import Principal

from scripts.openapi import merged

# Callers without a membership in the project of the path, by role, ...
ROLES = "admin developer operator auditor client"
# ... and with one: developers, a client and an auditor who belong to it, and the owner of another project.
MEMBERS = "owner member viewer client-member auditor-owner"
READERS = f"admin operator auditor {MEMBERS}"
BUILDERS = "admin owner member"
KEY_MAKERS = "admin owner member client-member"
OWNERS = "admin owner"
STAFF = "admin developer operator auditor"
CALLERS = [*ROLES.split(), *MEMBERS.split(), "outsider", "nobody"]

# Members are developers unless their name says otherwise, so outside the project they are let in like one.
_AS_ROLE = {"owner": "developer", "member": "developer", "viewer": "developer", "outsider": "developer",
            "client-member": "client", "auditor-owner": "auditor"}  # fmt: skip

P = "/projects/{project_id}"
D = f"{P}/deployments"
S = f"{P}/simulations"
TOOL = f"{P}/simulator"
TABLE: dict[tuple[str, str], str] = {
    ("GET", "/me"): ROLES,
    ("GET", "/users"): "admin auditor",
    ("POST", "/users"): "admin",
    ("GET", "/users/{user_id}"): "admin auditor",
    ("PATCH", "/users/{user_id}"): "admin",
    ("DELETE", "/users/{user_id}"): "admin",
    ("GET", "/projects"): ROLES,
    ("POST", "/projects"): "admin developer",
    ("GET", P): READERS,
    ("PATCH", P): OWNERS,
    ("DELETE", P): OWNERS,
    ("GET", f"{P}/members"): READERS,
    ("PUT", f"{P}/members/{{user_id}}"): OWNERS,
    ("DELETE", f"{P}/members/{{user_id}}"): OWNERS,
    ("GET", f"{P}/keys"): READERS,
    ("POST", f"{P}/keys"): KEY_MAKERS,
    ("GET", f"{P}/keys/{{key_id}}"): READERS,
    ("PATCH", f"{P}/keys/{{key_id}}"): KEY_MAKERS,
    ("DELETE", f"{P}/keys/{{key_id}}"): KEY_MAKERS,
    ("GET", f"{P}/endpoints"): READERS,
    ("GET", f"{P}/endpoints/{{name}}"): READERS,
    ("POST", f"{P}/endpoints"): OWNERS,
    ("PATCH", f"{P}/endpoints/{{name}}"): BUILDERS,
    ("DELETE", f"{P}/endpoints/{{name}}"): BUILDERS,
    ("GET", f"{P}/credentials"): READERS,
    ("PUT", f"{P}/credentials/{{name}}"): OWNERS,
    ("DELETE", f"{P}/credentials/{{name}}"): OWNERS,
    ("GET", "/gateways"): "admin operator",
    ("POST", "/gateways"): "admin operator",
    ("DELETE", "/gateways/{gateway_id}"): "admin operator",
    ("GET", "/blocking-rules"): "admin operator",
    ("POST", "/blocking-rules"): "admin operator",
    ("DELETE", "/blocking-rules/{rule_id}"): "admin operator",
    ("GET", "/models"): STAFF,
    ("POST", "/models"): "admin developer",
    ("GET", "/models/catalogue"): STAFF,
    ("GET", "/models/{model_id}"): STAFF,
    ("DELETE", "/models/{model_id}"): "admin developer",
    ("GET", "/clusters"): STAFF,
    ("POST", "/clusters"): "admin operator",
    ("GET", "/clusters/{cluster_id}"): STAFF,
    ("PATCH", "/clusters/{cluster_id}"): "admin operator",
    ("DELETE", "/clusters/{cluster_id}"): "admin operator",
    ("GET", "/clusters/{cluster_id}/nodes"): STAFF,
    ("GET", "/devices"): STAFF,
    ("GET", "/simulator/recommendations"): STAFF,
    ("POST", "/simulator/recommendations"): "admin operator",
    ("GET", "/simulator/blocked"): STAFF,
    ("POST", "/simulator/blocked"): "admin operator",
    ("DELETE", "/simulator/blocked/{blocked_id}"): "admin operator",
    ("GET", D): READERS,
    ("POST", D): BUILDERS,
    ("GET", f"{D}/{{deployment_id}}"): READERS,
    ("PATCH", f"{D}/{{deployment_id}}"): BUILDERS,
    ("DELETE", f"{D}/{{deployment_id}}"): BUILDERS,
    ("POST", f"{D}/{{deployment_id}}/sleep"): BUILDERS,
    ("POST", f"{D}/{{deployment_id}}/wake"): BUILDERS,
    ("GET", S): READERS,
    ("POST", S): BUILDERS,
    ("GET", f"{S}/{{simulation_id}}"): READERS,
    ("GET", f"{S}/{{simulation_id}}/plans"): READERS,
    ("GET", f"{TOOL}/calibration"): READERS,
    ("GET", f"{TOOL}/calibration/versions"): READERS,
    ("POST", f"{TOOL}/calibration/points"): BUILDERS,
    ("POST", f"{TOOL}/calibration/revert"): BUILDERS,
    ("POST", f"{TOOL}/predictions"): BUILDERS,
    ("POST", f"{TOOL}/node-configurations"): BUILDERS,
    ("POST", f"{TOOL}/recommendations"): BUILDERS,
    ("GET", f"{P}/metrics/usage"): READERS,
    ("GET", f"{P}/metrics/deployments/{{deployment_id}}/accuracy"): READERS,
    # Runs belong to the project in their record; ``{run_id}`` below is a run of the project.
    ("GET", "/runs"): "admin operator auditor",
    ("GET", "/runs/{run_id}"): READERS,
    ("POST", "/runs/{run_id}/cancel"): BUILDERS,
    ("POST", "/runs/{run_id}/retry"): BUILDERS,
}
# A gateway's own token opens these; a person's token does not.
FILES = "/gateway/projects/{project_id}/files"
BATCHES = "/gateway/projects/{project_id}/batches"
GATEWAY_ROUTES = {
    ("GET", "/gateway/config"), ("POST", "/gateway/leases"), ("POST", "/gateway/uploads"),
    ("GET", FILES), ("POST", FILES), ("GET", f"{FILES}/{{file_id}}"), ("DELETE", f"{FILES}/{{file_id}}"),
    ("GET", BATCHES), ("POST", BATCHES), ("GET", f"{BATCHES}/{{batch_id}}"), ("POST", f"{BATCHES}/{{batch_id}}/cancel"),
    ("POST", "/gateway/batches/claim"), ("POST", "/gateway/batches/{batch_id}/parts"),
    ("POST", "/gateway/batches/{batch_id}/report"),
    ("POST", f"{FILES}/{{file_id}}/arrived"), ("GET", f"{FILES}/{{file_id}}/content"),
}  # fmt: skip


def operations() -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, item in merged()["paths"].items() for method in item}


def test_every_route_has_a_row() -> None:
    assert operations() == TABLE.keys() | GATEWAY_ROUTES


@pytest.fixture
def project(call: Callable[..., Any]) -> str:
    return str(call("POST", "/projects", {"name": "alpha"}).ok(201)["id"])


@pytest.fixture
def run(project: str, monkeypatch: pytest.MonkeyPatch) -> str:
    from foundry_core import runs

    monkeypatch.setattr("foundry_core.runs.service.start_execution", lambda run: None)
    return runs.create("simulate", subject_id="sim_x", project_id=project, created_by="u").id


@pytest.fixture
def callers(
    project: str, call: Callable[..., Any], people: dict[str, Principal], join: Callable[..., Principal]
) -> dict[str, Principal | None]:
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    return {
        **people,
        **{level: join(project, level) for level in ("owner", "member", "viewer")},
        "client-member": join(project, "member", role="client", user_id="u-client-member"),
        "auditor-owner": join(project, "owner", role="auditor", user_id="u-auditor-owner"),
        "outsider": join(other, "owner", user_id="u-outsider"),
        "nobody": None,
    }


def expected(path: str, row: str, caller: str) -> str:
    """``in``, ``forbidden``, ``hidden`` or ``anonymous``."""
    if caller == "nobody":
        return "anonymous"
    of_project = "{project_id}" in path or "{run_id}" in path
    if caller in row.split() or (not of_project and _AS_ROLE.get(caller) in row.split()):
        return "in"
    sees = caller in READERS.split()
    return "forbidden" if not of_project or sees else "hidden"


def outcome(status: int, body: Any) -> str:
    code = (body or {}).get("code", "")
    # A route that fails for everybody lets nobody in; what these tests do not have is told as such.
    assert status < 500 or code in {"no_user_directory", "no_metrics_store"}, body
    if status == 401:
        return "anonymous"
    if status == 403:
        return "forbidden"
    return "hidden" if code in {"project_not_found", "run_not_found"} else "in"


@pytest.mark.parametrize(("method", "path"), sorted(TABLE), ids=" ".join)
def test_who_is_let_in(
    method: str, path: str, call: Callable[..., Any], callers: dict[str, Principal | None], project: str, run: str
) -> None:
    concrete = path.replace("{project_id}", project).replace("{run_id}", run)
    concrete = concrete.replace("{", "").replace("}", "")
    body = None if method == "GET" else {}
    seen = {}
    # Those who may do most come last: a delete must not take the resource away from the others.
    order = sorted(CALLERS, key=lambda caller: expected(path, TABLE[method, path], caller) == "in")
    wanted = {caller: expected(path, TABLE[method, path], caller) for caller in order}
    for caller in order:
        answer = call(method, concrete, body, callers[caller])
        seen[caller] = outcome(answer.status, answer.body)
        if method == "DELETE" and concrete.endswith(project) and answer.status == 204:
            break
    assert seen == {caller: wanted[caller] for caller in seen}


def test_gateway_routes_take_only_a_gateways_token(
    call: Callable[..., Any], callers: dict[str, Principal | None]
) -> None:
    for method, path in sorted(GATEWAY_ROUTES):
        body = None if method == "GET" else {}
        statuses = {call(method, path, body, who).status for who in callers.values()}
        forged = call(method, path, body, None, {"authorization": "Bearer fgw-forged"})
        assert statuses | {forged.status} == {401}, f"{method} {path}"


@pytest.mark.parametrize("header", ["x-amzn-oidc-data", "x-user-id", "x-foundry-role", "x-forwarded-user"])
def test_a_header_never_gives_authority(call: Callable[..., Any], header: str) -> None:
    answer = call("POST", "/users", {"email": "a@example.com"}, "client", {header: "admin"})
    assert answer.status == 403
