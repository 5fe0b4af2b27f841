"""How each gateway of the contest is configured and started: the same key, the same two engines, no body logging."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

KEY = "sk-bench-0042"
ENGINE_PORTS = (9101, 9102)
CONTROL_PORT = 9190
KEYS = 10_000
ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("GATEWAY_PYTHON", sys.executable)
LIMITS = {"requests_per_minute": 10**9, "tokens_per_minute": 10**13, "budget_nanos": 10**17}


@dataclass
class Contestant:
    """A gateway and how to reach it."""

    name: str
    port: int
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self, work: Path, core: str) -> bool:
        """Start it, wait for its port. False when it does not come up."""
        log = (work / f"{self.name}.log").open("ab")
        environment = os.environ | self.environment
        command = ["taskset", "-c", core, *self.command]
        self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        return wait_for_port(self.port, 90.0, self.process)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def cpu_s(self) -> float:
        """CPU seconds of the whole process tree so far, from the scheduler's own statistics."""
        assert self.process is not None
        return sum(_task_cpu_s(task) for pid in _tree(self.process.pid) for task in Path(f"/proc/{pid}/task").iterdir())

    def rss_mb(self) -> float:
        assert self.process is not None
        kb = 0
        for pid in _tree(self.process.pid):
            status = Path(f"/proc/{pid}/status").read_text()
            kb += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
        return kb / 1024


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found


def _task_cpu_s(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def wait_for_port(port: int, timeout_s: float, process: subprocess.Popen[bytes]) -> bool:
    ends_s = time.monotonic() + timeout_s
    while time.monotonic() < ends_s and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                time.sleep(1.5)  # the port is open before the rest is ready
                return True
        time.sleep(0.1)
    return False


def gateway_config(routing: str = "least_outstanding", ports: tuple[int, ...] = ENGINE_PORTS) -> dict[str, object]:
    """Ten thousand keys with all three limits, projects with budgets, one priced endpoint."""
    keys = [
        {
            "id": f"key_{n}",
            "sha256": hashlib.sha256(f"sk-bench-{n:04d}".encode()).hexdigest(),
            "project_id": f"prj_{n % 97}",
            "models": ["mock"],
            "limits": LIMITS,
        }
        for n in range(KEYS)
    ]
    tier = [{"id": f"dep_{p}", "url": f"http://127.0.0.1:{p}", "model": "mock"} for p in ports]
    price = {"input_nanos_per_token": 150, "output_nanos_per_token": 600}
    endpoint = {
        "name": "mock",
        "tiers": [tier],
        "price": price,
        "max_output_tokens": 8192,
        "policy": {"routing": routing},
    }
    projects = [{"id": f"prj_{n}", "limits": {"budget_nanos": 10**17}} for n in range(97)]
    return {"version": 1, "keys": keys, "projects": projects, "endpoints": [endpoint]}


def foundry(work: Path, routing: str = "least_outstanding", workers: int = 1) -> Contestant:
    environment = {
        "GATEWAY_CONTROL_PLANE_URL": f"http://127.0.0.1:{CONTROL_PORT}",
        "GATEWAY_TOKEN": "local-gateway-token",
        "GATEWAY_SPOOL_DIR": str(work / "spool"),
        "GATEWAY_PORT": "9201",
        "GATEWAY_WORKERS": str(workers),
        "PYTHONPATH": str(Path(os.environ.get("GATEWAY_PACKAGE", ROOT / "gateway_container")).resolve()),
    }
    name = "gateway" if workers == 1 and routing == "least_outstanding" else f"gateway_{routing}_{workers}"
    return Contestant(name, 9201, [PYTHON, "-m", "gateway"], environment)


def nginx(work: Path, workers: int = 1) -> Contestant | None:
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        return None
    servers = "".join(f"server 127.0.0.1:{port}; " for port in ENGINE_PORTS)
    here = work.resolve()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {here}/{kind}; " for kind in kinds)
    config = (
        f"daemon off; worker_processes {workers}; pid {here}/nginx.pid; error_log {here}/nginx-error.log;\n"
        "events { worker_connections 8192; }\n"
        f"http {{ access_log off; {temporary} keepalive_requests 100000000;\n"
        f"upstream engines {{ {servers} keepalive 512; keepalive_requests 100000000; }}\n"
        "server { listen 127.0.0.1:9202 reuseport; client_max_body_size 64m; client_body_buffer_size 1m;\n"
        'location / { proxy_pass http://engines; proxy_http_version 1.1; proxy_set_header Connection ""; '
        "proxy_buffering off; } } }\n"
    )
    (work / "nginx.conf").write_text(config)
    return Contestant("nginx", 9202, [binary, "-c", str((work / "nginx.conf").resolve())])


def sglang_router(work: Path) -> Contestant | None:
    python = work / "venv/bin/python"
    if not python.exists():
        return None
    urls = [f"http://127.0.0.1:{port}" for port in ENGINE_PORTS]
    command = [str(python), "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", "9203"]
    command += ["--worker-urls", *urls, "--policy", "cache_aware", "--log-level", "error", "--prometheus-port", "9293"]
    return Contestant("sglang_router", 9203, command)


def litellm(work: Path) -> Contestant | None:
    binary = work / "venv/bin/litellm"
    if not binary.exists():
        return None
    models = [
        {
            "model_name": "mock",
            "litellm_params": {"model": "openai/mock", "api_base": f"http://127.0.0.1:{port}/v1", "api_key": "x"},
        }
        for port in ENGINE_PORTS
    ]
    config = {"model_list": models, "general_settings": {"master_key": KEY}, "litellm_settings": {"telemetry": False}}
    (work / "litellm.json").write_text(json.dumps(config))  # JSON is YAML
    command = [str(binary), "--config", str(work / "litellm.json"), "--host", "127.0.0.1", "--port", "9204"]
    return Contestant(
        "litellm", 9204, command, {"LITELLM_LOG": "ERROR", "PATH": f"{work / 'venv/bin'}:{os.environ['PATH']}"}
    )


PEERS: dict[str, Callable[[Path], Contestant | None]] = {
    "nginx": nginx,
    "gateway": foundry,
    "sglang_router": sglang_router,
    "litellm": litellm,
}
