"""One local platform for all these tests, in a process of its own, with the demo cluster and one deployment."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from foundry_local import control
from foundry_local.state import StateDir, Status

from tests.snapshots import wait_for_snapshot

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0


def eventually(check: Callable[[], Any], limit_s: float = LIMIT_S, pause_s: float = 0.1) -> Any:
    deadline = time.monotonic() + limit_s
    while not (result := check()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(pause_s)
    return result


@dataclass
class LocalPlatform:
    """``up``, ``down`` and ``kill`` (SIGKILL) as often as you like; a client per role."""

    root: Path
    status: Status = field(default_factory=lambda: Status("stopped", 0, 0))
    _tokens: dict[str, str] = field(default_factory=dict)

    def up(self, port: int | None = None) -> Status:
        self.status = control.up(self.root, port, ROOT)
        return self.status

    def down(self) -> None:
        assert control.down(self.root)

    def kill(self) -> None:
        os.kill(self.status.pid, signal.SIGKILL)
        eventually(lambda: StateDir(self.root).owner() is None, pause_s=0.01)

    def saved(self) -> None:
        """Return once a kill would lose nothing that was acknowledged before the call."""
        wait_for_snapshot(StateDir(self.root).emulator / "snapshot.json", lambda: self.client().get("/me"), eventually)

    def token(self, role: str) -> str:
        if role not in self._tokens:
            self._tokens[role] = self._sign_in(f"{role}@foundry.local")
        return self._tokens[role]

    def _sign_in(self, username: str) -> str:
        status = self.status
        assert status.cognito_url and status.credentials
        password = json.loads(Path(status.credentials).read_text())["passwords"][username]
        headers = {
            "x-amz-target": "AWSCognitoIdentityProviderService.InitiateAuth",
            "content-type": "application/x-amz-json-1.1",
        }
        body = {
            "AuthFlow": "USER_PASSWORD_AUTH",
            "ClientId": status.client_id,
            "AuthParameters": {"USERNAME": username, "PASSWORD": password},
        }
        answer = httpx.post(status.cognito_url, headers=headers, json=body, timeout=LIMIT_S).raise_for_status()
        return str(answer.json()["AuthenticationResult"]["AccessToken"])

    def client(self, role: str = "admin") -> httpx.Client:
        headers = {"authorization": f"Bearer {self.token(role)}"}
        return httpx.Client(base_url=str(self.status.api_url), headers=headers, timeout=LIMIT_S)

    def gateway(self, key: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=str(self.status.api_url), headers=headers, timeout=LIMIT_S)

    def run(self, run_id: str) -> Any:
        return ok(self.client().get(f"/runs/{run_id}"))

    def ended(self, run_id: str) -> Any:
        """The run, once it has ended."""
        return eventually(lambda: (run := self.run(run_id))["status"] not in {"pending", "running"} and run)


def ok(answer: httpx.Response) -> Any:
    assert answer.is_success, f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


@pytest.fixture(name="eventually", scope="session")
def _eventually() -> Callable[..., Any]:
    return eventually


@pytest.fixture(name="ok", scope="session")
def _ok() -> Callable[[httpx.Response], Any]:
    return ok


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPlatform]:
    platform = LocalPlatform(tmp_path_factory.mktemp("platform") / "state")
    platform.up(0)
    yield platform
    control.down(platform.root)


@dataclass(frozen=True)
class MainJob:
    """What the main job leaves: a project with a deployment that is ready, and a key to call it."""

    project_id: str
    cluster_id: str
    model: Any
    plan: Any
    deployment_id: str
    endpoint: str
    key: str


@pytest.fixture(scope="package")
def job(platform: LocalPlatform) -> MainJob:
    """The main job through the REST API, as the demo does it."""
    api = platform.client()
    project = ok(api.post("/projects", json={"name": "main-job"}))["id"]
    cluster = register_cluster(platform, "demo", Path(str(platform.status.kubeconfig)).read_text())
    config = json.loads((ROOT / "examples" / "models" / "llama-3.1-8b-instruct.json").read_text())
    full = ok(api.post("/models", json={"name": "llama-3-1-8b", "config": config}))
    model = {name: full[name] for name in ("id", "name", "config")}
    plan, simulation = best_plan(platform, project, model, cluster["device_groups"])
    body = {"name": "chat", "cluster_id": cluster["id"], "model": model, "plan": plan, "simulation_id": simulation}
    answer = ok(api.post(f"/projects/{project}/deployments", json=body))
    run = platform.ended(answer["run"]["id"])
    assert run["status"] == "succeeded", run
    key = ok(api.post(f"/projects/{project}/keys", json={"name": "tests"}))["secret"]
    served = platform.gateway(key)
    eventually(lambda: served.get("/v1/models").is_success and served.get("/v1/models").json()["data"])
    return MainJob(project, cluster["id"], model, plan, answer["deployment"]["id"], "chat", key)


def register_cluster(platform: LocalPlatform, name: str, kubeconfig: str) -> Any:
    answer = ok(platform.client().post("/clusters", json={"name": name, "kind": "onprem", "kubeconfig": kubeconfig}))
    run = platform.ended(answer["run"]["id"])
    assert run["status"] == "succeeded", run
    return ok(platform.client().get(f"/clusters/{answer['cluster']['id']}"))


def best_plan(platform: LocalPlatform, project: str, model: Any, device_groups: Any) -> tuple[Any, str]:
    question = {
        "model": model,
        "device_groups": device_groups,
        "workload": {"input_tokens": 1024, "output_tokens": 256, "concurrency": 64},
        "service_levels": {"ttft_ms": 500, "tokens_per_second": 30},
    }
    answer = ok(platform.client().post(f"/projects/{project}/simulations", json=question))
    simulation = answer["simulation"]["id"]
    run = platform.ended(answer["run"]["id"])
    assert run["status"] == "succeeded", run
    plans = ok(platform.client().get(f"/projects/{project}/simulations/{simulation}/plans"))["items"]
    return plans[0], simulation
