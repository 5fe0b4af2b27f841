"""A restart keeps everything; so does ``kill -9``, for what a snapshot holds: on a machine with time to spare, what was
acknowledged more than two seconds before (that is measured in tests/integration/local/emulator).
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from foundry_local.front import Front, Routes, Upstream
from foundry_local.serve import HOST, bind, free_port

# Ready in ten seconds on a machine that has nothing else to do; what others do here makes it longer, not costlier.
QUICK_CPU_S = 10.0


def cpu_s(pid: int) -> float:
    """Processor time of a process and its children so far."""
    main, total = psutil.Process(pid), 0.0
    for process in (main, *main.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # a function's process that has ended meanwhile
            total += sum(process.cpu_times()[:2])
    return total


def answers(platform: Any, job: Any, key: str | None = None) -> bool:
    body = {"model": job.endpoint, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    return bool(platform.gateway(key or job.key).post("/v1/chat/completions", json=body).is_success)


def test_a_restart_reuses_the_state_and_is_quick(platform: Any, job: Any, ok: Any, eventually: Any) -> None:
    before = ok(platform.client().get(f"/projects/{job.project_id}/deployments"))["items"]
    ports = platform.status.api_url, platform.status.aws_url, platform.status.kube_url
    platform.down()
    status = platform.up()
    assert cpu_s(status.pid) < QUICK_CPU_S
    assert (status.api_url, status.aws_url, status.kube_url) == ports
    assert ok(platform.client().get(f"/projects/{job.project_id}/deployments"))["items"] == before
    eventually(lambda: answers(platform, job))


def test_a_second_platform_on_the_same_state_is_the_same(platform: Any) -> None:
    pid = platform.status.pid
    assert platform.up().pid == pid


def test_what_was_acknowledged_before_a_snapshot_survives_a_kill(
    platform: Any, job: Any, ok: Any, eventually: Any
) -> None:
    project = ok(platform.client().post("/projects", json={"name": "survives"}))
    key = ok(platform.client().post(f"/projects/{job.project_id}/keys", json={"name": "counted"}))
    eventually(lambda: answers(platform, job, key["secret"]))
    for _ in range(4):
        assert answers(platform, job, key["secret"])
    platform.saved()
    platform.kill()
    platform.up()
    assert ok(platform.client().get(f"/projects/{project['id']}"))["name"] == "survives"
    # Exactly: the gateway's journal, the upload, its event and the loader may each repeat what they were doing.
    eventually(lambda: answered(platform, job, key["id"], ok) == 5)
    eventually(lambda: answers(platform, job, key["secret"]))


def answered(platform: Any, job: Any, key_id: str, ok: Any) -> int:
    """Requests of a key that were answered, by its metering."""
    usage = ok(platform.client().get(f"/projects/{job.project_id}/metrics/usage", params={"group_by": "key"}))
    return sum(row["requests"] - row["failed"] for row in usage["items"] if row["group"] == key_id)


@pytest.fixture
def gate(platform: Any) -> Iterator[Front]:
    """In front of the cluster's API; core resources, nodes among them, are not there until it is opened."""
    kube = Upstream(HOST, int(platform.status.kube_url.rpartition(":")[2]), "the cluster", answer_s=None)
    server = Front(Routes({"api": Upstream(HOST, free_port(), "the API of nodes")}, kube), bind(0))
    server.start()
    yield server
    server.stop()


def test_a_run_that_a_kill_interrupts_goes_on_as_the_next_attempt(
    platform: Any, gate: Any, ok: Any, eventually: Any
) -> None:
    config = yaml.safe_load(Path(platform.status.kubeconfig).read_text())
    config["clusters"][0]["cluster"]["server"] = gate.url
    body = {"name": "behind-a-gate", "kind": "onprem", "kubeconfig": yaml.safe_dump(config)}
    run_id = ok(platform.client().post("/clusters", json=body))["run"]["id"]
    eventually(lambda: platform.run(run_id)["steps"][1]["status"] in {"running", "failed"})
    before = platform.run(run_id)
    assert (before["status"], before["attempt"]) == ("running", 1)
    platform.saved()
    platform.kill()
    gate.routes.named.clear()
    platform.up()
    after = platform.ended(run_id)
    assert (after["status"], after["attempt"]) == ("succeeded", 2)
    # What had succeeded was not done again.
    assert after["steps"][0] == before["steps"][0]


def test_no_process_of_a_killed_platform_stays(platform: Any, eventually: Any) -> None:
    children = psutil.Process(platform.status.pid).children(recursive=True)
    assert len(children) >= 2
    platform.kill()
    eventually(lambda: not any(child.is_running() for child in children))
    platform.up()


def test_the_front_may_move_and_the_rest_stays(platform: Any) -> None:
    aws_url = platform.status.aws_url
    platform.down()
    old = platform.up(0).api_url
    assert platform.status.aws_url == aws_url
    assert httpx.get(f"{old}/healthz").is_success
