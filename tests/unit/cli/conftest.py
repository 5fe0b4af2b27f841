"""A signed-in profile in a temporary home, and a platform made of canned answers."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from foundry_cli import profile
from foundry_cli.profile import Profile

FAR_FUTURE_MS = 4_000_000_000_000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def signed_in(home: Path) -> Profile:
    user = Profile(
        api_url="http://127.0.0.1:9",
        issuer="http://127.0.0.1:9/pool",
        client_id="client",
        username="ada",
        cognito_url="http://127.0.0.1:9/",
        access_token="token",
        refresh_token="refresh",
        expires_at_ms=FAR_FUTURE_MS,
    )
    profile.save(user)
    return user


@dataclass
class FakePlatform:
    """Gives each path its canned answer, 404 to any other; ``asked`` holds what was sent."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append((request.method, path, json.loads(request.content) if request.content else None))
        if path not in self.answers:
            return httpx.Response(404, json={"detail": f"There is no {path}.", "code": "not_found"})
        found = self.answers[path]
        return httpx.Response(200, json={"items": found, "next_cursor": None} if isinstance(found, list) else found)

    def body(self, method: str, path: str) -> Any:
        """What was sent there, once."""
        [body] = [body for *where, body in self.asked if where == [method, path]]
        return body


@pytest.fixture
def platform(signed_in: Profile, monkeypatch: pytest.MonkeyPatch) -> FakePlatform:
    """The platform that commands talk to: one project, model and cluster, and a simulation with one plan."""
    fake, client = FakePlatform(canned()), httpx.Client
    monkeypatch.setattr(
        httpx, "Client", lambda **options: client(**{**options, "transport": httpx.MockTransport(fake)})
    )
    return fake


SPREAD = {"mean": 100.0, "p50": 95.0, "p95": 150.0, "p99": 180.0, "lo": 90.0, "hi": 110.0}
PLAN = {
    "id": "plan_1", "devices": 1, "device": "h100_sxm", "engine": "vllm", "precision": {"label": "bf16"},
    "replicas": 1, "tp": 1, "pp": 1, "ep": 1, "dp": 1, "cost_nanos_per_hour": 3_000_000_000,
    "predicted": {"ttft_ms": SPREAD, "tpot_ms": SPREAD, "output_tokens_per_s": 900.0},
    "memory": {"usable_bytes": 2**36, "free_kv_bytes": 2**35, "memory_bytes": 2**36},
    "cost_nanos_per_million_output_tokens": 500_000_000,
}  # fmt: skip
STEP = {"name": "search", "title": "Search", "status": "succeeded", "detail": "1 plan"}
RUN = {"id": "run_1", "kind": "any", "status": "succeeded", "attempt": 1, "steps": [STEP], "error": None}
DEPLOYMENT = {
    "id": "dep_1", "project_id": "prj_1", "name": "chat", "status": "ready", "devices": 1, "run_id": "run_1",
    "cost_nanos_per_hour": 3_000_000_000, "plan": PLAN, "error": None,
}  # fmt: skip


def canned() -> dict[str, Any]:
    model = {"id": "mdl_1", "name": "llama", "config": {}, "repository": None}
    groups = [{"name": "a", "device": "h100_sxm", "nodes": 1, "devices_per_node": 8}]
    cluster = {"id": "cls_1", "name": "gpus", "device_groups": groups}
    project = "/projects/prj_1"
    return {
        "/projects": [{"id": "prj_1", "name": "alpha"}],
        "/models": [model], "/models/mdl_1": model, "/clusters": [cluster], "/clusters/cls_1": cluster,
        f"{project}/simulations": {"run": RUN, "simulation": {"id": "sim_1"}},
        f"{project}/simulations/sim_1": {"id": "sim_1", "outcome": {}},
        f"{project}/simulations/sim_1/plans": [PLAN], "/runs/run_1": RUN,
        f"{project}/deployments": [DEPLOYMENT], f"{project}/deployments/dep_1": DEPLOYMENT,
    }  # fmt: skip
